// The list of what is to be looked at, best first, with filters and how far it is.

import * as api from "./api.js";
import { el, keepingFocus } from "./dom.js";
import { stopWords } from "./stop_words.js";
import { known, number, t } from "./text.js";

const PAGE = 200; // rows at a time
const WAIT_MS = 250; // after the last letter of a search

export class QueueScreen {
  constructor(app) {
    this.app = app;
    this.name = "queue";
    this.offset = 0;
    this.at = 0;
    this.filters = { text: "", state: "", verdict: "" };
    this.rows = el("tbody", {});
    this.progress = el("div", { className: "queue-progress" });
    this.found = el("p", { className: "soft", role: "status" });
    this.pages = el("div", { className: "pages" });
    this.element = el(
      "div",
      { className: "queue-screen" },
      el("h1", {}, t("queue.title")),
      this.progress,
      this.#controls(),
      this.found,
      el("div", { className: "table-frame", tabIndex: -1 }, el("table", { className: "queue" }, this.#head(), this.rows)),
      this.pages,
    );
  }

  #controls() {
    const states = ["", "DRAFT", "IN_REVIEW", "REVIEWED", "SIGNED", "REJECTED", "CHANGED"];
    const verdicts = ["", "do-not-use", "look", "use"];
    const search = el("input", { type: "search", placeholder: t("queue.search"), "aria-label": t("queue.search"), oninput: () => this.#filter("text", search.value, WAIT_MS) });
    const choice = (name, values, prefix) => {
      const options = values.map((value) => el("option", { value }, value === "" ? t(`queue.any_${name}`) : known(prefix, value)));
      const select = el("select", { "aria-label": t(`queue.any_${name}`), onchange: () => this.#filter(name, select.value, 0) }, options);
      return select;
    };
    return el("div", { className: "controls" }, search, choice("state", states, "state"), choice("verdict", verdicts, "verdict"));
  }

  #head() {
    const names = ["case", "structure", "quality", "reason", "minutes", "state", "holder"];
    return el("thead", {}, el("tr", {}, names.map((name) => el("th", { scope: "col", className: `of-${name}`, title: t(`queue.column.${name}.help`) }, t(`queue.column.${name}`)))));
  }

  #filter(name, value, wait_ms) {
    this.filters[name] = value;
    this.offset = 0;
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.load(), wait_ms);
  }

  async start() {
    await this.load();
    document.body.dataset.ready = "queue";
  }

  async load() {
    const given = Object.fromEntries(Object.entries(this.filters).filter(([, value]) => value !== ""));
    const answer = await api.getQueue({ offset: this.offset, limit: PAGE, ...given });
    this.items = answer.items;
    this.total = answer.total ?? answer.items.length;
    this.app.queue = this.items;
    this.at = Math.max(0, this.items.findIndex((item) => item.case === this.app.lastCase));
    this.#drawProgress(answer.progress);
    keepingFocus(this.element, () => this.#drawRows());
    this.found.textContent = this.total === 0 ? t("queue.none") : t("queue.found", { first: this.offset + 1, last: this.offset + this.items.length, total: number(this.total) });
    this.#drawPages();
  }

  #drawProgress({ signed, cases, minutes_used, minutes_left, stop, stop_facts, is_over }) {
    const left = minutes_left === null || minutes_left === undefined ? "" : t("queue.left", { minutes: number(minutes_left) });
    this.progress.replaceChildren(
      el("progress", { max: Math.max(1, cases), value: signed, "aria-label": t("queue.signed", { signed, cases }) }),
      el("p", {}, el("b", {}, t("queue.signed", { signed, cases })), ` · ${t("queue.used", { minutes: number(minutes_used ?? 0) })}`, left && ` · ${left}`),
      stop ? el("p", { className: "soft" }, stop_facts?.length > 0 ? stopWords(stop_facts, is_over) : stop) : "",
    );
  }

  #drawRows() {
    this.rows.replaceChildren(...this.items.map((item, at) => this.#row(item, at)));
    this.#mark();
  }

  #row(item, at) {
    const open = () => this.app.go("case", item.case, { structure: item.structure, region: item.region });
    return el(
      "tr",
      { onclick: open, onfocusin: () => this.#focus(at), "data-case": item.case },
      el("td", { className: "of-case" }, el("button", { type: "button", className: "link", "data-structure": `${item.case} ${item.structure}` }, item.case)),
      el("td", { className: "of-structure" }, item.structure ?? "", item.region !== null && item.region !== undefined && el("small", {}, t("queue.region", { region: item.region }))),
      el("td", { className: "of-quality" }, quality(item)),
      el("td", { className: "of-reason" }, item.reason ?? ""),
      el("td", { className: "of-minutes" }, item.minutes === null || item.minutes === undefined ? "" : number(item.minutes, 1)),
      el("td", { className: "of-state" }, el("span", { className: `state ${item.state}` }, known("state", item.state))),
      el("td", { className: "of-holder" }, item.holder ? t("queue.held", { user: item.holder }) : ""),
    );
  }

  #focus(at) {
    this.at = at;
    this.#mark();
  }

  #mark() {
    [...this.rows.children].forEach((row, at) => row.classList.toggle("selected", at === this.at));
  }

  #drawPages() {
    const button = (words, offset) => el("button", { type: "button", className: "act", disabled: offset < 0 || offset >= this.total, onclick: () => this.#page(offset) }, words);
    this.pages.hidden = this.total <= PAGE;
    this.pages.replaceChildren(button(t("queue.earlier"), this.offset - PAGE), button(t("queue.later"), this.offset + PAGE));
  }

  #page(offset) {
    this.offset = Math.max(0, offset);
    this.load();
  }

  run(id, { isDown = true } = {}) {
    if (!isDown || !this.items?.length) {
      return;
    }
    if (id === "item_next" || id === "item_previous") {
      const at = Math.max(0, Math.min(this.items.length - 1, this.at + (id === "item_next" ? 1 : -1)));
      this.rows.children[at].querySelector("button").focus();
    } else if (id === "open") {
      const item = this.items[this.at];
      this.app.go("case", item.case, { structure: item.structure, region: item.region });
    }
  }

  async close() {
    clearTimeout(this.waiting);
  }
}

/** A bar from 0 to 1 with a mark at the lower bound, and the same in figures. */
function quality({ predicted_dice, lower_bound, verdict }) {
  if (predicted_dice === null || predicted_dice === undefined) {
    return el("span", { className: "soft" }, "–");
  }
  const bound = lower_bound === null || lower_bound === undefined ? null : lower_bound;
  const meter = el("meter", { min: 0, max: 1, value: predicted_dice, "aria-hidden": "true" });
  const figures = bound === null ? number(predicted_dice, 2) : t("queue.dice", { dice: number(predicted_dice, 2), bound: number(bound, 2) });
  return el("span", { className: "dice", title: verdict ? known("verdict", verdict) : "" }, meter, el("span", {}, figures));
}
