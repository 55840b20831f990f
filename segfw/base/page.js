"use strict";
// Tables that are sorted, searched, filtered and turned page by page, and pictures that are enlarged. Rows that stand in the
// page are taken as they are; a long table's are made from its data when they are seen.
const MISSING = "–";
const PAGE_SIZES = [25, 100, 500];
const SEARCHED_FROM = 12;  // rows; fewer are seen at a glance
const MOST_PRINTED = {all: 200, chosen: 1000};  // rows of a long table, as it is or after a search

const make = (name, values = {}, ...children) => {
  const element = Object.assign(document.createElement(name), values);
  element.append(...children);
  return element;
};
const grouped = number => number.toLocaleString("en");
const normal = text => text.toLocaleLowerCase();

// Rows that stand in the page
function writtenRows(table) {
  const rows = [...table.tBodies[0].rows];
  const texts = rows.map(row => normal(row.textContent));
  const isText = [...table.tHead.rows[0].cells].map(head => head.classList.contains("text"));
  return {
    count: rows.length,
    isText: column => isText[column],
    key: (row, column) => {
      const cell = rows[row].cells[column];
      const key = cell.dataset.key ?? cell.textContent;
      return isText[column] ? key : key === "" ? NaN : Number(key);
    },
    holds: word => row => texts[row].includes(word),
    choices: () => [],
    row: row => rows[row],
  };
}

// Rows of data: texts are numbered names, numbers are whole multiples of the last digit that is shown
function storedRows(data) {
  const columns = data.columns;
  const isText = column => columns[column].names !== undefined;
  const name = (row, column) => columns[column].names[columns[column].at[row]];
  const number = (row, column) => {
    const value = columns[column].values[row];
    return value === null ? NaN : value / 10 ** (columns[column].digits ?? 0);
  };
  const shown = (row, column) => {
    const value = number(row, column);
    return isNaN(value) ? MISSING : columns[column].digits === undefined ? String(value) : value.toFixed(columns[column].digits);
  };
  const cell = (row, column) => {
    if (!isText(column)) return make("td", {}, shown(row, column));
    const text = name(row, column);
    const address = (columns[column].links ?? {})[text];
    return make("td", {className: "text"}, address ? make("a", {href: address}, text) : text);
  };
  return {
    count: data.rows,
    isText,
    key: (row, column) => isText(column) ? name(row, column) : number(row, column),
    holds: word => {
      const found = columns.filter(column => column.names).map(column => [column.at, column.names.map(text => normal(text).includes(word))]);
      return row => found.some(([at, has]) => has[at[row]]);
    },
    choices: () => columns.flatMap((column, index) => column.choose ? [[index, column.choose, column.names]] : []),
    row: row => make("tr", {}, ...columns.map((_, column) => cell(row, column))),
  };
}

function bringToLife(scroll) {
  const table = scroll.querySelector("table");
  const body = table.tBodies[0];
  const stored = scroll.querySelector("script[type='application/json']");
  const rows = stored ? storedRows(JSON.parse(stored.textContent)) : writtenRows(table);
  const firstHead = table.tHead.rows[0].cells[0];
  const every = Array.from({length: rows.count}, (_, row) => row);
  const chosen = new Map();  // column -> the one text that is wanted
  let order = every;
  let found = every;
  let page = 0;
  let size = stored ? PAGE_SIZES[0] : rows.count || 1;

  const frame = make("div", {className: "table"});
  scroll.replaceWith(frame);
  const sideways = make("p", {className: "sideways"}, "More columns to the right: scroll the table sideways. →");
  const controls = make("div", {className: "controls"});
  const search = make("input", {type: "search", placeholder: scroll.dataset.search || "Find in this table"});
  search.setAttribute("aria-label", search.placeholder);
  const figures = make("span", {className: "found"});
  figures.setAttribute("aria-live", "polite");
  const turns = ["First", "Previous", "Next", "Last"].map(name => make("button", {type: "button"}, name));
  const sizes = make("select", {}, ...PAGE_SIZES.map(number => make("option", {value: number}, `${number} rows a page`)));
  sizes.setAttribute("aria-label", "Rows a page");
  const area = make("div", {}, scroll);
  const below = make("div", {className: "controls"});
  frame.append(controls, sideways, area, below);
  area.className = "table";
  if (rows.count > SEARCHED_FROM) controls.append(search);

  const pages = () => Math.max(1, Math.ceil(found.length / size));
  const measure = () => {
    const hidden = scroll.scrollWidth - scroll.clientWidth;
    frame.classList.toggle("more-columns", hidden > 4);
    area.classList.toggle("more", hidden - scroll.scrollLeft > 4);
    table.style.setProperty("--first-width", `${firstHead.offsetWidth}px`);
    if (hidden > 4) scroll.tabIndex = 0; else scroll.removeAttribute("tabindex");
  };
  const show = (first, last) => {
    body.replaceChildren(...found.slice(first, last).map(rows.row));
    const most = Math.min(last, found.length);
    const total = found.length < rows.count ? `${grouped(found.length)} found in ${grouped(rows.count)} rows` : `${grouped(rows.count)} rows`;
    figures.textContent = !found.length ? "Nothing found." : most - first < found.length ? `${grouped(first + 1)} to ${grouped(most)} of ${total}` : total;
    turns.forEach((turn, index) => { turn.disabled = index < 2 ? page === 0 : page >= pages() - 1; });
    measure();
  };
  const render = () => show(page * size, (page + 1) * size);
  const filter = () => {
    const tests = normal(search.value).split(/\s+/).filter(Boolean).map(rows.holds);
    for (const [column, wanted] of chosen) tests.push(row => rows.key(row, column) === wanted);
    found = order.filter(row => tests.every(test => test(row)));
    page = 0;
    render();
  };
  const sort = (column, ascending) => {
    const keys = every.map(row => rows.key(row, column));
    const collator = new Intl.Collator(undefined, {numeric: true});
    const sign = ascending ? 1 : -1;
    // What is missing comes last both ways.
    const byNumber = (a, b) => isNaN(keys[a]) - isNaN(keys[b]) || sign * (keys[a] - keys[b]) || 0;
    order = [...order].sort(rows.isText(column) ? (a, b) => sign * collator.compare(keys[a], keys[b]) : byNumber);
    filter();
  };

  search.addEventListener("input", filter);
  for (const [column, every_name, names] of rows.choices()) {
    const select = make("select", {}, make("option", {value: ""}, every_name), ...names.map(name => make("option", {value: name}, name)));
    select.setAttribute("aria-label", every_name);
    select.addEventListener("change", () => {
      if (select.selectedIndex) chosen.set(column, select.value); else chosen.delete(column);
      filter();
    });
    controls.append(select);
  }
  if (rows.count > SEARCHED_FROM) controls.append(figures);
  if (rows.count > size) {
    sizes.addEventListener("change", () => { size = Number(sizes.value); page = 0; render(); });
    const places = [() => 0, () => page - 1, () => page + 1, () => pages() - 1];
    turns.forEach((turn, index) => turn.addEventListener("click", () => { page = places[index](); render(); }));
    below.append(...turns, sizes);
  }
  const heads = table.classList.contains("sortable") ? [...table.tHead.rows[0].cells] : [];
  const mark = head => { head.querySelector("i").textContent = {ascending: "\u25B2", descending: "\u25BC"}[head.getAttribute("aria-sort")] ?? "\u2195"; };
  heads.forEach((head, column) => {
    const arrow = make("i");
    const small = head.querySelector("small");
    const handle = make("span", {className: "sort", tabIndex: 0}, ...head.childNodes);
    handle.setAttribute("role", "button");
    handle.insertBefore(arrow, small);
    head.append(handle);
    mark(head);
    const turn = () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      heads.forEach(mark);
      sort(column, ascending);
    };
    handle.addEventListener("click", turn);
    handle.addEventListener("keydown", event => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); turn(); }
    });
  });
  scroll.addEventListener("scroll", measure, {passive: true});
  addEventListener("resize", measure);
  addEventListener("beforeprint", () => {
    const most = found.length < rows.count ? MOST_PRINTED.chosen : MOST_PRINTED.all;
    show(0, stored ? most : rows.count);
    const leftOut = found.length - body.rows.length;
    if (leftOut > 0) frame.append(make("p", {className: "left-out soft"}, `Printed are the first ${body.rows.length} of ${grouped(found.length)} rows: search or filter before printing to choose others.`));
  });
  addEventListener("afterprint", () => { frame.querySelectorAll(".left-out").forEach(note => note.remove()); render(); });
  render();
}

// Pictures: the dialog shows a copy as large as the window takes; arrow keys go on to the next, Escape closes.
function enlargePictures() {
  const pictures = [...document.querySelectorAll(".enlarge")];
  if (!pictures.length) return;
  const place = make("div");
  const caption = make("p");
  const [before, after, close] = ["← Previous", "Next →", "Close"].map(name => make("button", {type: "button"}, name));
  const dialog = make("dialog", {}, place, make("div", {className: "bar"}, caption, before, after, close));
  document.body.append(dialog);
  let at = 0;
  const show = index => {
    at = (index + pictures.length) % pictures.length;
    const copy = pictures[at].cloneNode(true);
    ["tabindex", "role", "id"].forEach(name => copy.removeAttribute(name));
    const image = copy.querySelector("img");
    const original = pictures[at].querySelector("img");
    const [width, height] = [original.naturalWidth, original.naturalHeight];
    // As large as the window takes, but never below its own size: a small window scrolls.
    const scale = Math.max(1, Math.min((innerWidth - 40) / width, (innerHeight - 110) / height));
    image.width = Math.round(scale * width);
    image.height = Math.round(scale * height);
    place.replaceChildren(copy);
    caption.textContent = pictures[at].closest("figure")?.querySelector("figcaption")?.textContent.trim() || original.alt;
    if (!dialog.open) dialog.showModal();
  };
  pictures.forEach((picture, index) => {
    picture.tabIndex = 0;
    picture.setAttribute("role", "button");
    picture.title = "Enlarge";
    picture.addEventListener("click", () => show(index));
    picture.addEventListener("keydown", event => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); show(index); }
    });
  });
  [before, after].forEach(button => { button.hidden = pictures.length < 2; });
  before.addEventListener("click", () => show(at - 1));
  after.addEventListener("click", () => show(at + 1));
  close.addEventListener("click", () => dialog.close());
  place.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => pictures[at].focus());
  dialog.addEventListener("keydown", event => {
    if (event.key === "ArrowLeft") show(at - 1);
    if (event.key === "ArrowRight") show(at + 1);
  });
}

document.querySelectorAll(".scroll").forEach(bringToLife);
enlargePictures();
