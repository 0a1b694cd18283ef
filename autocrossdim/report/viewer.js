// The viewer: slices of a case in up to three planes, with uncertainty and outlines of annotation and prediction.
"use strict";
(() => {
  const section = document.getElementById("viewer");
  if (!section) return;
  const shared = JSON.parse(document.getElementById("viewer-shared").textContent);
  const cases = JSON.parse(document.getElementById("viewer-cases").textContent);
  const find = (name) => section.querySelector(`[data-role="${name}"]`);
  const BOX = 350; // CSS pixels that the larger side of a plane may take
  const WHEEL = 40; // pixels of wheel or finger per slice
  let current = null;
  let planes = [];
  const hidden = new Set(); // labels that are not drawn

  // Reading a case

  const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

  async function inflate(text) {
    const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).arrayBuffer();
  }

  async function pixels(text) {
    const image = new Image();
    image.src = "data:image/webp;base64," + text;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = image.width;
    canvas.height = image.height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, image.width, image.height);
  }

  async function decoded(each) {
    if (each.ready) return each.ready;
    const labels = async (text) => {
      const buffer = await inflate(text);
      return each.wide ? new Uint16Array(buffer) : new Uint8Array(buffer);
    };
    const [sprite, annotation, prediction, uncertainty] = await Promise.all([
      pixels(each.image), labels(each.annotation), labels(each.prediction),
      each.uncertainty ? pixels(each.uncertainty) : null,
    ]);
    each.ready = { sprite, annotation, prediction, uncertainty };
    return each.ready;
  }

  // Planes

  // The array index (z, y, x) of a pixel of a plane's slice.
  function voxel(plane, slice, row, column) {
    const index = [0, 0, 0];
    index[plane.axis] = slice;
    index[plane.rows] = plane.flipped ? current.shape[plane.rows] - 1 - row : row;
    index[plane.columns] = column;
    return index;
  }

  // A slice of a sprite as a canvas; `paint` writes red, green, blue and alpha of a voxel from its stored values.
  function picture(plane, slice, sprite, paint) {
    const [, height, width] = current.shape;
    const rows = current.shape[plane.rows], columns = current.shape[plane.columns];
    const image = new ImageData(columns, rows);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const [z, y, x] = voxel(plane, slice, row, column);
        const tileY = Math.floor(z / current.columns) * height, tileX = (z % current.columns) * width;
        const from = 4 * ((tileY + y) * sprite.width + tileX + x);
        paint(image.data, 4 * (row * columns + column), sprite.data, from);
      }
    }
    const canvas = document.createElement("canvas");
    canvas.width = columns;
    canvas.height = rows;
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  // The colour of each stored uncertainty: none below 5 % of a tie between two labels, and faint up to a third.
  const ramp = Array.from({ length: 256 }, (_, stored) => {
    const share = stored / 255, place = share * (shared.ramp.length - 1), k = Math.min(Math.floor(place), shared.ramp.length - 2);
    const channel = (colour, c) => parseInt(colour.slice(1 + 2 * c, 3 + 2 * c), 16);
    const mixed = [0, 1, 2].map((c) => channel(shared.ramp[k], c) * (k + 1 - place) + channel(shared.ramp[k + 1], c) * (place - k));
    return [...mixed.map(Math.round), 255 * 0.85 * Math.min(1, Math.max(0, (share - 0.05) / 0.3))];
  });

  // The screen's grey of each stored grey, according to the window.
  function windowTable() {
    const centre = Number(find("centre").value), width = Math.max(Number(find("width").value), 1e-9);
    const table = new Uint8ClampedArray(256);
    for (let stored = 0; stored < 256; stored++) {
      let k = 0;
      while (k < current.levels.length - 2 && stored > current.levels[k + 1][1]) k++;
      const [low, from] = current.levels[k], [high, to] = current.levels[k + 1];
      const value = low + (high - low) * (stored - from) / (to - from);
      table[stored] = 255 * ((value - centre) / width + 0.5);
    }
    return table;
  }

  // Closed outlines along the voxel edges of a label in a slice, as lists of corners [column, row].
  function outlines(labels, values, plane, slice) {
    const rows = current.shape[plane.rows], columns = current.shape[plane.columns];
    const [, height, width] = current.shape;
    const wanted = new Set(values);
    const mask = new Uint8Array(rows * columns);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const [z, y, x] = voxel(plane, slice, row, column);
        mask[row * columns + column] = wanted.has(labels[(z * height + y) * width + x]) ? 1 : 0;
      }
    }
    const inside = (row, column) =>
      row >= 0 && row < rows && column >= 0 && column < columns && mask[row * columns + column];
    // Each edge runs with the label on its right, from one corner to the next.
    const next = new Map();
    const add = (x0, y0, x1, y1) => {
      const key = y0 * (columns + 1) + x0;
      if (!next.has(key)) next.set(key, []);
      next.get(key).push([x1, y1]);
    };
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        if (!mask[y * columns + x]) continue;
        if (!inside(y - 1, x)) add(x, y, x + 1, y);
        if (!inside(y, x + 1)) add(x + 1, y, x + 1, y + 1);
        if (!inside(y + 1, x)) add(x + 1, y + 1, x, y + 1);
        if (!inside(y, x - 1)) add(x, y + 1, x, y);
      }
    }
    const closed = [];
    for (const key of next.keys()) {
      while (next.get(key).length) {
        const corners = [];
        let at = key;
        while (next.get(at) && next.get(at).length) {
          const corner = next.get(at).pop();
          corners.push(corner);
          at = corner[1] * (columns + 1) + corner[0];
        }
        closed.push(corners);
      }
    }
    return closed;
  }

  function path(corners, scaleX, scaleY) {
    const drawn = new Path2D();
    for (const outline of corners) {
      outline.forEach(([x, y], k) => (k ? drawn.lineTo(x * scaleX, y * scaleY) : drawn.moveTo(x * scaleX, y * scaleY)));
      drawn.closePath();
    }
    return drawn;
  }

  function overlay(context, view, labels, { dash = [], filled = false } = {}) {
    const opacity = Number(find("opacity").value) / 100;
    for (const label of shared.labels) {
      if (hidden.has(label)) continue;
      const corners = outlines(labels, label.values, view.plane, view.slice);
      if (!corners.length) continue;
      const drawn = path(corners, view.width / view.columns, view.height / view.rows);
      if (filled) {
        context.globalAlpha = 0.5 * opacity;
        context.fillStyle = label.colour;
        context.fill(drawn, "evenodd");
      } else {
        // Half of each line falls inside the label; the other half would cover the outline of a label that touches it.
        context.save();
        context.clip(drawn, "evenodd");
        context.globalAlpha = opacity;
        context.lineJoin = "round";
        context.setLineDash(dash);
        context.strokeStyle = shared.casing;
        context.lineWidth = 6;
        context.stroke(drawn);
        context.strokeStyle = label.colour;
        context.lineWidth = 4;
        context.stroke(drawn);
        context.restore();
      }
      context.globalAlpha = 1;
    }
  }

  function marks(context, view) {
    const { width, height } = view;
    const places = [[10, height / 2], [width - 10, height / 2], [width / 2, 11], [width / 2, height - 10]];
    context.font = "bold 14px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    [...view.plane.marks].forEach((letter, k) => {
      context.lineWidth = 3;
      context.strokeStyle = "#000";
      context.strokeText(letter, ...places[k]);
      context.fillStyle = "#fff";
      context.fillText(letter, ...places[k]);
    });
  }

  function draw(view) {
    const ratio = window.devicePixelRatio || 1;
    const { canvas, plane } = view;
    canvas.width = Math.round(view.width * ratio);
    canvas.height = Math.round(view.height * ratio);
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    const table = windowTable(), { sprite, uncertainty } = current.ready;
    const scan = picture(plane, view.slice, sprite, (to, at, stored, from) => {
      for (let c = 0; c < 3; c++) to[at + c] = table[stored[from + c]];
      to[at + 3] = 255;
    });
    context.imageSmoothingQuality = "high";
    context.drawImage(scan, 0, 0, view.width, view.height);
    const undecided = uncertainty && find("uncertainty").checked;
    if (undecided) {
      context.globalAlpha = Number(find("opacity").value) / 100;
      const map = picture(plane, view.slice, uncertainty, (to, at, stored, from) => to.set(ramp[stored[from]], at));
      context.drawImage(map, 0, 0, view.width, view.height);
      context.globalAlpha = 1;
    }
    const filled = find("style").value === "fill";
    if (find("annotation").checked) overlay(context, view, current.ready.annotation, { filled });
    if (find("prediction").checked) overlay(context, view, current.ready.prediction, { dash: filled ? [] : [5, 3] });
    marks(context, view);
    const text = `${plane.name}, slice ${view.slice + 1} of ${view.slices}`;
    view.caption.textContent = view.slices > 1 ? text : plane.marks ? plane.name : "";
    view.slider.value = view.slice;
    canvas.setAttribute("aria-label", `${current.name}, ${text}, with outlines of annotation and prediction${undecided ? ", and uncertainty" : ""}`);
  }

  function drawAll() {
    find("legend").hidden = !(current?.uncertainty && find("uncertainty").checked);
    planes.forEach(draw);
  }

  function move(view, step) {
    const slice = Math.min(view.slices - 1, Math.max(0, view.slice + step));
    if (slice === view.slice) return;
    view.slice = slice;
    draw(view);
  }

  // The position in the label maps of the voxel under the pointer.
  function voxelAt(view, event) {
    const box = view.canvas.getBoundingClientRect();
    const along = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
    const row = along((event.clientY - box.top) / box.height, view.rows);
    const column = along((event.clientX - box.left) / box.width, view.columns);
    const [z, y, x] = voxel(view.plane, view.slice, row, column);
    return (z * current.shape[1] + y) * current.shape[2] + x;
  }

  function named(labels, place) {
    const found = shared.labels.filter((label) => label.values.includes(labels[place]));
    return found.map((label) => label.name).join(" and ") || "none";
  }

  function listen(view) {
    const { canvas, slider } = view;
    let wheel = 0, finger = null;
    canvas.addEventListener("wheel", (event) => {
      if (view.slice === (event.deltaY > 0 ? view.slices - 1 : 0)) return; // beyond the last slice, the page scrolls
      event.preventDefault();
      wheel += event.deltaMode ? event.deltaY * WHEEL : event.deltaY;
      const steps = Math.trunc(wheel / WHEEL);
      wheel -= steps * WHEEL;
      move(view, steps);
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const all = view.slices;
      const step = {
        ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: -all, End: all,
      }[event.key];
      if (!step) return;
      event.preventDefault();
      move(view, step);
    });
    // A finger moves to the side, because up and down it scrolls the page.
    const along = (event) => (event.pointerType === "touch" ? event.clientX : event.clientY);
    canvas.addEventListener("pointerdown", (event) => {
      finger = along(event);
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (finger === null) return;
      const steps = Math.trunc((along(event) - finger) / 8);
      finger += steps * 8;
      move(view, steps);
    });
    canvas.addEventListener("pointermove", (event) => {
      const { annotation, prediction } = current.ready;
      const place = voxelAt(view, event);
      const names = [["annotation", annotation], ["prediction", prediction]].map(([what, labels]) => `${what}: ${named(labels, place)}`);
      view.here.textContent = names.join(", ");
    });
    canvas.addEventListener("pointerleave", () => (view.here.textContent = ""));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (finger = null));
    slider.addEventListener("input", () => move(view, Number(slider.value) - view.slice));
  }

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function layOut() {
    const size = (axis) => current.shape[axis] * current.spacing[axis];
    const largest = Math.max(...current.planes.flatMap((plane) => [size(plane.rows), size(plane.columns)]));
    const box = current.planes.length > 1 ? BOX : 1.6 * BOX;
    const scale = Math.min(box, section.clientWidth || box) / largest; // the same in all planes
    planes = current.planes.map((plane) => {
      const slices = current.shape[plane.axis];
      const canvas = element("canvas", { tabindex: 0, role: "img" });
      const slider = element("input", { type: "range", min: 0, max: slices - 1, "aria-label": `slice, ${plane.name}` });
      slider.hidden = slices === 1;
      const caption = element("div"), here = element("div", { class: "here" });
      const view = {
        plane, slices, slice: plane.start, canvas, slider, caption, here,
        rows: current.shape[plane.rows], columns: current.shape[plane.columns],
        width: scale * size(plane.columns), height: scale * size(plane.rows),
      };
      canvas.style.width = `${view.width}px`;
      canvas.style.height = `${view.height}px`;
      here.style.width = `${view.width}px`;
      listen(view);
      return view;
    });
    find("planes").replaceChildren(
      ...planes.map((view) => element("div", { class: "plane" }, view.canvas, view.slider, view.caption, view.here)),
    );
  }

  async function open(number) {
    const chosen = cases[number];
    find("case").value = number;
    try {
      await decoded(chosen);
    } catch (error) {
      find("notes").textContent = `This browser cannot show the case (${error.message}). Use a current version.`;
      return;
    }
    if (find("case").value !== String(number)) return; // another case was chosen meanwhile
    const first = current === null;
    current = chosen;
    const lacks = cases.some((each) => each.uncertainty) && !current.uncertainty ? ["There is no uncertainty map of this case."] : [];
    find("notes").textContent = `${current.name}: ${[current.text, ...current.notes, ...lacks].join(" ")}`;
    if (first) find("preset").value = current.window;
    if (first || ["automatic", "full"].includes(find("preset").value)) setWindow();
    find("uncertainty").disabled = !current.uncertainty;
    layOut();
    drawAll();
  }

  function setWindow() {
    const preset = find("preset").value;
    const [low, high] = preset === "full"
      ? [current.levels[0][0], current.levels[current.levels.length - 1][0]] : current.range;
    const known = shared.windows.find((each) => each.name === preset);
    find("centre").value = Number((known ? known.centre : (low + high) / 2).toPrecision(4));
    find("width").value = Number((known ? known.width : high - low).toPrecision(4));
  }

  // Controls

  cases.forEach((each, number) => find("case").append(new Option(`${each.title}`, number)));
  for (const each of shared.windows) find("preset").append(new Option(`${each.name} (${each.centre}/${each.width})`, each.name));
  find("preset").append(new Option("automatic", "automatic"), new Option("full range", "full"));
  const switches = shared.labels.map((label) => {
    const colour = element("i");
    colour.style.background = label.colour;
    const button = element("button", { type: "button", class: "plain" }, colour, label.name);
    button.addEventListener("click", () => show(hidden.has(label) ? [label] : [], hidden.has(label) ? [] : [label]));
    return button;
  });
  function show(shown, others) {
    shown.forEach((label) => hidden.delete(label));
    others.forEach((label) => hidden.add(label));
    switches.forEach((button, k) => button.setAttribute("aria-pressed", !hidden.has(shared.labels[k])));
    drawAll();
  }
  const all = element("button", { type: "button" }, "All"), none = element("button", { type: "button" }, "None");
  all.addEventListener("click", () => show(shared.labels, []));
  none.addEventListener("click", () => show([], shared.labels));
  find("key").append(...switches, ...(switches.length > 3 ? [all, none] : []));
  show([], []);
  find("case").addEventListener("change", () => open(Number(find("case").value)));
  find("previous").addEventListener("click", () => open(Math.max(0, Number(find("case").value) - 1)));
  find("next").addEventListener("click", () => open(Math.min(cases.length - 1, Number(find("case").value) + 1)));
  find("preset").addEventListener("change", () => { if (find("preset").value !== "own") setWindow(); drawAll(); });
  for (const name of ["centre", "width"]) {
    find(name).addEventListener("input", () => { find("preset").value = "own"; drawAll(); });
  }
  find("preset").append(new Option("as entered", "own"));
  const stops = [0, 0.05, 0.2, 0.35, 0.5, 0.75, 1].map((share) => {
    const [r, g, b, a] = ramp[Math.round(255 * share)];
    return `rgb(${r} ${g} ${b} / ${a / 255}) ${100 * share}%`;
  });
  find("ramp").style.backgroundImage = `linear-gradient(to right, ${stops})`;
  section.addEventListener("keydown", (event) => {
    const name = { a: "annotation", p: "prediction", u: "uncertainty" }[event.key.toLowerCase()];
    if (!name || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input[type=number]")) return;
    find(name).click();
  });
  for (const name of ["annotation", "prediction", "uncertainty", "style", "opacity"]) find(name).addEventListener("input", drawAll);

  for (const button of document.querySelectorAll("[data-case]")) {
    button.addEventListener("click", () => document.dispatchEvent(new CustomEvent("open-case", { detail: button.dataset.case })));
  }
  // Other parts of the page open a case with this event.
  document.addEventListener("open-case", (event) => {
    const number = cases.findIndex((each) => each.name === event.detail);
    if (number < 0) return;
    open(number);
    section.scrollIntoView();
  });
  section.hidden = false;
  open(0);
})();
