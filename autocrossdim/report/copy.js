// Copies the methods as plain text, also where the clipboard is closed to pages opened from a file.
(() => {
  const button = document.getElementById("copy-methods");
  button.hidden = false;
  button.addEventListener("click", async () => {
    const section = document.getElementById("methods");
    const rows = [...section.querySelectorAll("tr")].map((row) => [...row.cells].map((cell) => cell.textContent).join("\t"));
    const text = [section.querySelector("p").textContent, "", ...rows].join("\n");
    let copied = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      copied = document.execCommand("copy");
      area.remove();
      button.focus();
    }
    if (!copied) getSelection().selectAllChildren(section);
    button.textContent = copied ? "Copied" : "Not copied: press Ctrl+C";
  });
})();
