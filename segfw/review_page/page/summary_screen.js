// The end of a session: minutes, what was done, made errors that were found, and what the audit says.

import * as api from "./api.js";
import { el } from "./dom.js";
import { number, t } from "./text.js";

const DONE = ["reviewed", "signed", "rejected"];

export class SummaryScreen {
  constructor(app) {
    this.app = app;
    this.name = "summary";
    this.element = el("div", { className: "summary-screen" });
  }

  async start() {
    const summary = await api.getSummary().catch(() => null);
    const { work_s, done } = this.app.counted();
    const kinds = Object.fromEntries(DONE.map((kind) => [kind, done.filter((each) => each.kind === kind).length]));
    this.element.replaceChildren(
      el("h1", {}, t("summary.title")),
      el(
        "div",
        { className: "figures" },
        figure(number(work_s / 60, 1), t("summary.minutes_here")),
        ...DONE.map((kind) => figure(number(kinds[kind]), t(`summary.${kind}`))),
      ),
      el("p", { className: "soft" }, t("summary.clock")),
      el("h2", {}, t("summary.folder")),
      ...this.#folder(summary),
    );
    document.body.dataset.ready = "summary";
  }

  #folder(summary) {
    if (summary === null) {
      return [el("p", { className: "soft" }, t("summary.none"))];
    }
    const lines = [];
    if (summary.minutes !== undefined) {
      lines.push(t("summary.total", { minutes: number(summary.minutes, 1), signed: summary.signed ?? 0, reviewed: summary.reviewed ?? 0, rejected: summary.rejected ?? 0 }));
    }
    const { planted, audit, log } = summary;
    lines.push(planted ? t("summary.planted", { shown: planted.shown, caught: planted.caught, bound: share(planted.lower_bound) }) : t("summary.no_plants"));
    lines.push(audit ? t("summary.audit", { checked: audit.checked, failures: audit.failures, bound: share(audit.upper_bound) }) : t("summary.no_audit"));
    if (log) {
      lines.push(t("summary.log", { n: log.n, sha256: String(log.sha256).slice(0, 16) }));
    }
    return [el("ul", { className: "lines" }, lines.map((line) => el("li", {}, line)))];
  }

  run() {}

  async close() {
  }
}

function figure(value, words) {
  return el("div", { className: "figure" }, el("b", {}, value), el("span", {}, words));
}

function share(value) {
  return value === null || value === undefined ? "–" : `${number(100 * value, 1)} %`;
}
