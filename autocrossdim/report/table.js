// The table of all labels and cases: sorted by a click on a heading, filtered, and downloaded as CSV.
"use strict";
(() => {
  const section = document.getElementById("all-results");
  if (!section) return;
  const { columns, digits, rows, drawn, file } = JSON.parse(document.getElementById("all-results-data").textContent);
  const find = (name) => section.querySelector(`[data-role="${name}"]`);
  const included = new Set(drawn);
  const MOST = 500; // rows on the page at once
  let by = null, down = false, shown = rows;

  const isNumber = (column) => digits[column] !== null;
  const text = (value, column) =>
    value === null ? "–" : isNumber(column) ? value.toFixed(digits[column]) : value;

  function cell(row, column) {
    const made = document.createElement("td");
    if (isNumber(column)) made.className = "n";
    if (column === 0 && included.has(row[0])) {
      const button = document.createElement("button");
      button.className = "plain";
      button.textContent = row[0];
      button.addEventListener("click", () => document.dispatchEvent(new CustomEvent("open-case", { detail: row[0] })));
      made.append(button);
    } else made.textContent = text(row[column], column);
    return made;
  }

  function update() {
    const words = find("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    shown = rows.filter((row) => {
      const line = row.filter((_, column) => !isNumber(column)).join(" ").toLowerCase();
      return words.every((word) => line.includes(word));
    });
    if (by !== null) {
      const order = (a, b) => {
        if (a[by] === null || b[by] === null) return (a[by] === null) - (b[by] === null); // unknown values last
        const sign = isNumber(by) ? a[by] - b[by] : a[by].localeCompare(b[by], undefined, { numeric: true });
        return down ? -sign : sign;
      };
      shown = [...shown].sort(order);
    }
    find("body").replaceChildren(...shown.slice(0, MOST).map((row) => {
      const line = document.createElement("tr");
      line.append(...columns.map((_, column) => cell(row, column)));
      return line;
    }));
    const count = shown.length > MOST ? `The first ${MOST} of ${shown.length} rows are shown.` : `${shown.length} rows.`;
    find("count").textContent = count;
  }

  columns.forEach((name, column) => {
    const heading = document.createElement("th");
    heading.scope = "col";
    if (isNumber(column)) heading.className = "n";
    const button = document.createElement("button");
    button.className = "plain";
    button.textContent = name;
    button.addEventListener("click", () => {
      down = by === column && !down;
      by = column;
      for (const other of find("head").children) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      update();
    });
    heading.append(button);
    find("head").append(heading);
  });

  // A field that a spreadsheet would run as a formula starts with an apostrophe.
  function field(value) {
    if (value === null) return "";
    if (typeof value === "number") return String(value);
    const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }

  find("download").addEventListener("click", () => {
    const lines = [columns, ...shown].map((row) => row.map(field).join(","));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(["\ufeff" + lines.join("\r\n") + "\r\n"], { type: "text/csv" }));
    link.download = file;
    link.click();
    URL.revokeObjectURL(link.href);
  });
  find("filter").addEventListener("input", update);
  section.hidden = false;
  update();
})();
