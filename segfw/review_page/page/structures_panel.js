// The list of structures: what was decided, how good the draft probably is, what is shown, and the decisions themselves.

import { actionButton, el } from "./dom.js";
import { colourOf, cssColour, lineStyleOf } from "./palette.js";
import { known, number, t } from "./text.js";

const SEARCH_FROM = 15; // structures

/** The line that stands for a structure in the list: its colour with its style. */
export function sample(index) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "sample");
  svg.setAttribute("viewBox", "0 0 26 10");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const parts = { x1: 1, y1: 5, x2: 25, y2: 5, stroke: cssColour(colourOf(index)), "stroke-width": 4, "stroke-dasharray": lineStyleOf(index).join(" ") };
  for (const [name, value] of Object.entries(parts)) {
    line.setAttribute(name, value);
  }
  svg.append(line);
  return svg;
}

/** What is said of the quality in a few signs, with the same in words for who hovers or listens. */
export function qualityMark(structure) {
  if (structure.predicted_dice === null || structure.predicted_dice === undefined) {
    return el("span", { className: "quality none", title: t("quality.none") }, "");
  }
  const words = qualityWords(structure);
  const verdict = structure.verdict ?? "look";
  return el(
    "span",
    { className: `quality ${verdict}`, title: words },
    el("span", { className: "verdict-sign", "aria-hidden": "true" }, { use: "●", look: "◐", "do-not-use": "○" }[verdict] ?? "◐"),
    number(structure.predicted_dice, 2),
    el("span", { className: "unseen" }, words),
  );
}

export function qualityWords(structure) {
  const { predicted_dice, lower_bound, verdict } = structure;
  if (predicted_dice === null || predicted_dice === undefined) {
    return t("quality.none");
  }
  const bound = lower_bound === null || lower_bound === undefined ? t("quality.no_bound") : t("quality.bound", { bound: number(lower_bound, 2) });
  const first = t("quality.dice", { dice: number(predicted_dice, 2), bound });
  return verdict ? t("quality.with_verdict", { dice: first, verdict: known("verdict", verdict) }) : first;
}

export class StructuresPanel {
  /** @param {{select: function, toggle: function, decide: function, run: function}} does */
  constructor(does) {
    this.does = does;
    this.search = "";
    this.list = el("ul", { className: "structures" });
    this.find = el("input", {
      type: "search",
      placeholder: t("structures.find"),
      "aria-label": t("structures.find"),
      oninput: () => {
        this.search = this.find.value.trim().toLowerCase();
        this.draw();
      },
    });
    this.progress = el("p", { className: "soft progress-line", "aria-live": "polite" });
    this.buttons = el("div", { className: "decide" });
    this.element = el(
      "section",
      { className: "panel structures-panel", "aria-label": t("structures.title") },
      el("h2", {}, t("structures.title")),
      this.progress,
      this.find,
      this.list,
      this.buttons,
    );
  }

  update(state) {
    this.state = state;
    this.draw();
  }

  draw() {
    const { structures, selected, isEditable, state } = this.state;
    const decided = structures.filter(({ decision }) => decision).length;
    this.progress.textContent = t("structures.decided", { decided, count: structures.length });
    this.find.hidden = structures.length < SEARCH_FROM;
    const shown = structures.filter(({ label }) => label.toLowerCase().includes(this.search));
    this.list.replaceChildren(...shown.map((structure) => this.#row(structure)));
    const canDecide = isEditable && selected !== null;
    const current = structures.find(({ index }) => index === selected);
    const button = (id) =>
      actionButton(id, this.does.run, { isEnabled: canDecide, isPressed: current?.decision === id, className: `decision ${id}` });
    const isAll = decided === structures.length && structures.length > 0;
    this.buttons.replaceChildren(
      el("p", { className: "current" }, current ? t("structures.decide_on", { name: current.label }) : ""),
      el("div", { className: "row" }, button("accept"), button("edit"), button("absent")),
      el(
        "div",
        { className: "row" },
        actionButton("finish", this.does.run, {
          isEnabled: (isEditable && isAll) || state === "REVIEWED" || state === "SIGNED",
          className: "primary",
          text: state === "REVIEWED" || state === "SIGNED" ? t("action.finish.sign") : t("action.finish"),
        }),
        actionButton("reject", this.does.run, { isEnabled: isEditable || state === "REVIEWED" }),
      ),
    );
    this.list.querySelector('[aria-current="true"]')?.scrollIntoView({ block: "nearest" });
  }

  #row(structure) {
    const { selected, hidden } = this.state;
    const { index, label, decision, volume_ml } = structure;
    const isSelected = index === selected;
    const isHidden = hidden.has(index);
    const decided = decision ? t(`decision.${decision}`) : t("decision.open");
    return el(
      "li",
      { className: `structure ${isSelected ? "selected" : ""}`, "aria-current": isSelected ? "true" : null },
      el(
        "button",
        { type: "button", className: "name", onclick: () => this.does.select(index, true), "data-structure": label },
        sample(index),
        el("span", { className: "label" }, label),
        el("span", { className: "volume" }, volume_ml > 0 ? t("structures.ml", { ml: number(volume_ml, volume_ml < 10 ? 1 : 0) }) : volume_ml === null ? "" : "–"),
        qualityMark(structure),
        el("span", { className: `decided ${decision ?? "open"}` }, decided),
      ),
      el(
        "button",
        {
          type: "button",
          className: "eye",
          onclick: () => this.does.toggle(index),
          "aria-pressed": String(!isHidden),
          "aria-label": t("structures.show", { name: label }),
          title: t("structures.show", { name: label }),
        },
        isHidden ? "◌" : "◉",
      ),
    );
  }
}
