// Sorting of tables; search, filters and links to the chart of the table of rows. Works on the rows of the page.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const { state, make, announce } = dlbench;

  // ---- sorting

  /** Heading and number of the column by sort key. Headings may span columns and rows, other cells do not. */
  const columnsOf = (table) => {
    const filled = [];
    const byKey = new Map();
    [...table.tHead.rows].forEach((row, y) => {
      filled[y] ??= [];
      let x = 0;
      for (const cell of row.cells) {
        while (filled[y][x]) x += 1;
        for (let dy = 0; dy < cell.rowSpan; dy += 1)
          for (let dx = 0; dx < cell.colSpan; dx += 1) (filled[y + dy] ??= [])[x + dx] = true;
        if (cell.dataset.sort) byKey.set(cell.dataset.sort, { heading: cell, index: x });
        x += cell.colSpan;
      }
    });
    return byKey;
  };

  /** What a cell sorts by: its first number, else its text; null where there is nothing. */
  const valueOf = (cell) => {
    const text = cell?.textContent.trim() ?? "";
    if (!text || text === "–") return null;
    const number = /^[◆\s]*([-−+]?[\d.]+)/.exec(text.replaceAll(",", ""));
    return number ? Number(number[1].replace("−", "-")) : text.toLowerCase();
  };

  const compare = (one, other, way) => {
    if (one === null || other === null) return (one === null) - (other === null); // what is missing stays below
    if (typeof one === typeof other) return way * (one < other ? -1 : one > other ? 1 : 0);
    return typeof one === "number" ? -1 : 1;
  };

  /** Make a table sortable by the state of that name; `place` puts its lines in order. */
  const sortable = (table, key, place) => {
    const body = table.tBodies[0];
    place ??= (lines) => body.append(...lines);
    const heads = [...body.querySelectorAll("tr.head")];
    const original = [...body.rows];
    const rows = original.filter((row) => !heads.includes(row));
    const columns = columnsOf(table);
    // A method's name is not a number, whatever it starts with.
    const cells = (row, name) => {
      // Cells that compare.js has added are not counted by columnsOf.
      const own = [...row.cells].filter((cell) => !cell.classList.contains("do") && !cell.classList.contains("versus"));
      const cell = own[columns.get(name).index];
      return name === "name" ? cell.textContent.trim().toLowerCase() : valueOf(cell);
    };
    // The first click puts the best end on top, which the heading names: the most of a quality, the least of a cost.
    const first = (name) => (columns.get(name).heading.dataset.best === "most" ? "descending" : "ascending");
    const cached = new Map();
    const apply = (sort) => {
      const [name, way] = sort.split(".");
      const known = columns.has(name);
      for (const [other, { heading }] of columns) heading.setAttribute("aria-sort", known && other === name ? way : "none");
      if (!known) {
        place(original);
        heads.forEach((head) => (head.dataset.off = ""));
        return;
      }
      const values = cached.get(name) ?? new Map(rows.map((row) => [row, cells(row, name)]));
      cached.set(name, values);
      const sign = way === "ascending" ? 1 : -1;
      heads.forEach((head) => (head.dataset.off = "1"));
      place([...heads, ...[...rows].sort((a, b) => compare(values.get(a), values.get(b), sign))]);
    };
    for (const [name, { heading }] of columns) {
      heading.setAttribute("aria-sort", "none");
      const button = make("button", {
        type: "button",
        onclick: () => {
          // Best end first, then the other, then the order that the page came in.
          const start = first(name);
          const cycle = ["", `${name}.${start}`, `${name}.${start === "ascending" ? "descending" : "ascending"}`];
          state.set({ [key]: cycle[(Math.max(0, cycle.indexOf(state.get(key))) + 1) % 3] });
          announce(`sorted by ${heading.textContent.trim()}, ${heading.getAttribute("aria-sort")}`);
        },
      });
      button.append(...heading.childNodes);
      heading.append(button);
    }
    return { apply, rows };
  };

  const summary = document.getElementById("summary");
  if (summary) {
    const sorter = sortable(summary, "methods");
    let sorted = "";
    const show = () => {
      if (state.get("methods") !== sorted) sorter.apply((sorted = state.get("methods")));
    };
    document.addEventListener("dlbench:state", show);
    show();
    if (sorted) dlbench.unfold?.(summary);
  }

  // ---- the table of rows

  const table = document.getElementById("table");
  if (!table) return;
  const body = table.tBodies[0];
  let ordered = [...body.rows];
  // Of a long table only the first lines are laid out, and more as one asks for them: all together take seconds.
  const STEP = 100;
  const long = ordered.length > 3 * STEP;
  let most = STEP;
  const sorter = sortable(table, "sort", (lines) => {
    ordered = lines;
    if (!long) body.append(...lines);
  });
  const { rows } = sorter;
  const more = make("button", { type: "button", class: "tool", onclick: () => ((most += STEP), render()) });
  const render = () => {
    if (!long) return;
    let count = 0;
    body.replaceChildren(...ordered.filter((row) => !row.hidden && (row.classList.contains("head") || (count += 1) <= most)));
    more.hidden = count <= most;
    more.textContent = `Show ${Math.min(STEP, count - most)} more of ${count - most}`;
  };
  if (long) table.parentElement.after(more);
  const texts = new Map(); // filled by the first search: reading thousands of rows takes a while
  const textOf = (row) => texts.get(row) ?? texts.set(row, `${row.textContent} ${row.dataset.t ?? ""}`.toLowerCase()).get(row);
  const sections = new Map(); // head → rows that stand below it
  {
    let head = null;
    for (const row of table.tBodies[0].rows) {
      if (row.classList.contains("head")) sections.set((head = row), []);
      else sections.get(head)?.push(row);
    }
  }
  const find = document.getElementById("find");
  const budget = document.getElementById("budget");
  const front = document.getElementById("front");
  const reset = document.getElementById("reset");
  const count = document.getElementById("count");
  const kinds = [...document.querySelectorAll("[data-kind]")];
  const byId = new Map(rows.map((row) => [row.id, row]));
  dlbench.table = { table, rows, sorter, inside: null, show: () => show() };

  let sorted = "";
  const show = () => {
    const q = state.get("q").toLowerCase();
    const words = q.split(/\s+/).filter(Boolean);
    const wanted = state.list("kind");
    const share = state.get("budget");
    const only = state.get("front");
    const boxed = state.get("box") && dlbench.table.inside ? dlbench.table.inside(state.get("box")) : null;
    let seen = 0;
    for (const row of rows) {
      const kind = row.dataset.k === "full" || row.dataset.k === "dense" ? "reference" : row.dataset.k;
      const here =
        (!wanted.length || wanted.includes(kind)) &&
        (!share || row.dataset.b === share) &&
        (!only || row.querySelector(".front") !== null) &&
        (!boxed || boxed.has(row.id)) &&
        words.every((word) => textOf(row).includes(word));
      if (row.hidden === here) row.hidden = !here;
      seen += here;
    }
    const sort = state.get("sort");
    if (sort !== sorted) sorter.apply((sorted = sort));
    for (const [head, below] of sections) head.hidden = head.dataset.off === "1" || below.every((row) => row.hidden);
    render();
    count.textContent = seen === rows.length ? `${rows.length} rows` : `${seen} of ${rows.length} rows`;
    reset.hidden = !(q || wanted.length || share || only || state.get("box"));
    if (budget) budget.value = share;
    front.setAttribute("aria-pressed", String(Boolean(only)));
    for (const button of kinds) button.setAttribute("aria-pressed", String(wanted.includes(button.dataset.kind)));
    dlbench.table.seen = seen;
  };

  budget?.addEventListener("change", () => state.set({ budget: budget.value }));
  front.addEventListener("click", () => state.set({ front: state.get("front") ? "" : "1" }));
  reset.addEventListener("click", () => {
    state.set({ q: "", kind: "", budget: "", front: "", box: "" });
    find?.focus();
  });
  for (const button of kinds)
    button.addEventListener("click", () => {
      const now = new Set(state.list("kind"));
      if (!now.delete(button.dataset.kind)) now.add(button.dataset.kind);
      state.set({ kind: [...now] });
      announce(count.textContent);
    });
  document.addEventListener("dlbench:state", show);
  show();

  // ---- rows and series point at each other

  const light = (series) => document.dispatchEvent(new CustomEvent("dlbench:hot", { detail: series ? [series] : [] }));
  table.addEventListener("pointerover", (event) => light(event.target.closest("tbody tr")?.dataset.s));
  table.addEventListener("pointerleave", () => light());
  table.addEventListener("focusin", (event) => light(event.target.closest("tbody tr")?.dataset.s));
  const legend = document.getElementById("legend");
  legend?.addEventListener("pointerover", (event) => light(event.target.closest("li")?.dataset.s));
  legend?.addEventListener("pointerleave", () => light());
  legend?.addEventListener("focusin", (event) => light(event.target.closest("li")?.dataset.s));
  legend?.addEventListener("focusout", () => light());
  document.addEventListener("dlbench:hot", (event) => {
    for (const item of legend?.querySelectorAll("li") ?? []) item.classList.toggle("hot", event.detail.includes(item.dataset.s));
  });

  /** Bring a row into view and mark it; the address then leads there. */
  dlbench.point = (id) => {
    const row = byId.get(id);
    if (!row) {
      const beyond = document.getElementById("beyond"); // where all rows are, if this page has not all
      if (beyond) location.href = `${beyond.getAttribute("href")}#line=${encodeURIComponent(id)}`;
      return;
    }
    dlbench.unfold(table);
    if (row.hidden) state.set({ q: "", kind: "", budget: "", front: "", box: "", line: id });
    else state.set({ line: id });
    reveal(row);
  };
  const reveal = (row) => {
    if (long && !row.isConnected) {
      most = ordered.filter((one) => !one.hidden).indexOf(row) + STEP;
      render();
    }
    row.scrollIntoView({ block: "center" });
  };
  let lit = "";
  const mark = () => {
    const id = state.get("line");
    if (id === lit) return;
    for (const one of [lit, id]) byId.get(one)?.classList.toggle("lit", one === id);
    lit = id;
  };
  document.addEventListener("dlbench:state", mark);
  mark();
  const start = state.get("line");
  const anchored = byId.get(location.hash.slice(1));
  if (start) dlbench.point(start);
  else if (anchored) reveal(anchored);
  else if (["kind", "budget", "front", "sort", "cmp", "tick", "box"].some((name) => state.get(name))) dlbench.unfold(table);
});
