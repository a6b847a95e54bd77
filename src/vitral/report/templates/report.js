// Adds to the page what needs a hand: images behind a confusion, sorting, the threshold's slider.
"use strict";
{
  const data = JSON.parse(document.getElementById("data").textContent);
  const spoken = (name, values) =>
    data.words[name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
  const make = (tag, parent, text = "") => {
    const element = document.createElement(tag);
    element.textContent = text;
    parent.append(element);
    return element;
  };
  const percent = (share, digits = 1) =>
    share === null ? "–" : `${(100 * share).toFixed(digits)}\u00a0%`;
  const grouped = (count) => String(count).replace(/\B(?=(\d{3})+$)/g, "\u202f");

  for (const element of document.querySelectorAll(".scripted")) element.hidden = false;

  // a button in place of the text of a cell or heading
  const button = (element, action) => {
    const text = element.textContent;
    element.textContent = "";
    const made = make("button", element, text);
    made.type = "button";
    made.addEventListener("click", () => action(made));
    return made;
  };

  const panel = document.getElementById("cell");
  let opener = null;

  const close = () => {
    panel.hidden = true;
    opener?.setAttribute("aria-expanded", "false");
    opener?.focus();
    opener = null;
  };

  const open = (place, from) => {
    const cell = data.cells[place];
    opener?.setAttribute("aria-expanded", "false");
    opener = from;
    from.setAttribute("aria-expanded", "true");
    panel.replaceChildren();
    const head = make("div", panel);
    head.className = "head";
    const kind = cell.truth === cell.predicted ? "right" : "cell";
    make("h3", head, spoken(kind, { ...cell, count: grouped(cell.count) }));
    const shut = make("button", head, spoken("close", {}));
    shut.type = "button";
    shut.addEventListener("click", close);
    const thumbs = cell.images.filter(([key]) => data.thumbs[key]);
    if (thumbs.length) {
      const row = make("div", panel);
      row.className = "thumbs";
      for (const [key, score] of thumbs) {
        const figure = make("figure", row);
        const image = make("img", figure);
        image.src = data.thumbs[key];
        image.alt = key;
        figure.title = key;
        make("figcaption", figure, `${score}\u00a0%`);
      }
    }
    const list = make("ul", panel);
    list.className = "files";
    for (const [key, score] of cell.images) {
      const line = make("li", list);
      make("span", line, key);
      make("small", line, ` ${score}\u00a0%`);
    }
    const more = cell.count - cell.images.length;
    if (more > 0) make("p", panel, spoken("more", { count: grouped(more) })).className = "note";
    panel.hidden = false;
    panel.scrollIntoView({ block: "nearest" });
  };

  for (const cell of document.querySelectorAll("[data-cell]")) {
    const made = button(cell, (from) => open(cell.dataset.cell, from));
    made.setAttribute("aria-label", cell.title);
    made.setAttribute("aria-expanded", "false");
    made.setAttribute("aria-controls", "cell");
  }
  panel?.addEventListener("keydown", (event) => event.key === "Escape" && close());

  // of the matrix one cell is reached by Tab, the others from there by the arrows
  const matrix = document.querySelector(".matrix");
  if (matrix) {
    const rows = [...matrix.tBodies[0].rows];
    const all = [...matrix.querySelectorAll("button")];
    all.forEach((one, index) => (one.tabIndex = index ? -1 : 0));
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    matrix.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && opener) close();
      const cell = event.target.closest("td");
      if (!(event.key in steps) || !cell) return;
      event.preventDefault();
      const [down, across] = steps[event.key];
      let row = rows.indexOf(cell.parentNode);
      let column = cell.cellIndex;
      let next = null;
      do {
        row += down;
        column += across;
        next = rows[row]?.cells[column];
      } while (next && !next.querySelector("button"));
      const target = next?.querySelector("button");
      if (!target) return;
      for (const one of all) one.tabIndex = -1;
      target.tabIndex = 0;
      target.focus();
    });
  }

  for (const table of document.querySelectorAll("[data-sortable]")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (!head.textContent || head.className === "bar") return;
      const title = spoken("sort", { column: head.textContent });
      const compare = (one, other) => {
        const [a, b] = [one.cells[column], other.cells[column]];
        if ("v" in a.dataset) return a.dataset.v - b.dataset.v;
        return a.textContent.localeCompare(b.textContent, undefined, { numeric: true });
      };
      button(head, () => {
        const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", turn === 1 ? "ascending" : "descending");
        const body = table.tBodies[0];
        body.append(...[...body.rows].sort((one, other) => turn * compare(one, other)));
      }).title = title;
    });
  }

  const slider = document.getElementById("sure");
  if (slider) {
    const { thresholds, answered, right, samples } = data.sure;
    const show = (name, text) => (document.getElementById(name).textContent = text);
    const moved = () => {
      const at = Number(slider.value);
      const threshold = thresholds[at];
      show("threshold", percent(threshold));
      show("coverage", percent(answered[at] / samples));
      show("accuracy", percent(answered[at] ? right[at] / answered[at] : null));
      show("unsure", grouped(samples - answered[at]));
      document.getElementById("cursor").style.left = `${12 + 85 * threshold}%`;
      slider.setAttribute("aria-valuetext", percent(threshold));
    };
    slider.addEventListener("input", moved);
    moved();
  }
}
