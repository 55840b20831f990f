// The right side: places that may be wrong with their candidates, quality in words, what is unusual about the image, history.

import { actionButton, el } from "./dom.js";
import { keyLabel } from "./keymap.js";
import { known, number, t, when } from "./text.js";
import { qualityWords } from "./structures_panel.js";

const MOST_CANDIDATES = 6;

export class FindingsPanel {
  /** @param {{goToRegion: function, run: function}} does */
  constructor(does) {
    this.does = does;
    this.regions = el("div", {});
    this.quality = el("div", {});
    this.gate = el("div", {});
    this.history = el("ol", { className: "history" });
    this.element = el(
      "div",
      { className: "findings" },
      part("findings.regions", this.regions, true),
      part("findings.quality", this.quality, true),
      part("findings.gate", this.gate, true),
      part("findings.history", this.history, false),
    );
  }

  update({ about, region, selected, isEditable }) {
    this.#drawRegions(about, region, isEditable);
    this.#drawQuality(about, selected);
    this.#drawGate(about);
    this.history.replaceChildren(...[...about.history].reverse().map(line));
    if (about.history.length === 0) {
      this.history.replaceChildren(el("li", { className: "soft" }, t("history.none")));
    }
  }

  #drawRegions(about, current, isEditable) {
    if (about.hidden) {
      this.regions.replaceChildren(el("p", { className: "soft" }, t("blind.hidden")));
      return;
    }
    if (about.regions.length === 0) {
      this.regions.replaceChildren(el("p", { className: "soft" }, t("regions.none")));
      return;
    }
    const rows = about.regions.map((region, at) => this.#region(region, at, at === current, isEditable));
    const buttons = el(
      "div",
      { className: "row" },
      actionButton("region_previous", this.does.run),
      actionButton("region_next", this.does.run),
    );
    this.regions.replaceChildren(buttons, el("ul", { className: "regions" }, rows));
  }

  #region(region, at, isCurrent, isEditable) {
    const size = region.expected_wrong_mm3 ? t("regions.size", { ml: number(region.expected_wrong_mm3 / 1000, 2) }) : "";
    const candidates = isCurrent ? (region.candidates ?? []).slice(0, MOST_CANDIDATES) : [];
    return el(
      "li",
      { className: isCurrent ? "selected" : "", "aria-current": isCurrent ? "true" : null },
      el(
        "button",
        { type: "button", className: "region", onclick: () => this.does.goToRegion(at), "data-region": String(region.id) },
        el("span", { className: "label" }, region.label),
        el("span", {}, known("region", region.kind)),
        el("span", { className: "soft" }, size),
      ),
      candidates.length > 0 && el("p", { className: "soft" }, t("regions.candidates")),
      candidates.length > 0 &&
        el(
          "div",
          { className: "candidates" },
          candidates.map((candidate, index) =>
            el(
              "button",
              {
                type: "button",
                className: "act",
                disabled: !isEditable,
                onclick: () => this.does.run(`candidate_${index + 1}`),
                title: t("action.candidate_1.help"),
                "data-action": `candidate_${index + 1}`,
              },
              el("kbd", {}, keyLabel(`candidate_${index + 1}`)),
              el("span", {}, namesOf(candidate)),
            ),
          ),
        ),
    );
  }

  #drawQuality(about, selected) {
    if (about.hidden) {
      this.quality.replaceChildren(el("p", { className: "soft" }, t("blind.hidden")));
      return;
    }
    const structure = about.structures.find(({ index }) => index === selected) ?? about.structures[0];
    if (structure === undefined) {
      this.quality.replaceChildren(el("p", { className: "soft" }, t("quality.none")));
      return;
    }
    const reasons = structure.reasons ?? [];
    this.quality.replaceChildren(
      el("p", {}, el("b", {}, structure.label), t("quality.colon"), qualityWords(structure)),
      reasons.length > 0 && el("ul", { className: "reasons" }, reasons.map((reason) => el("li", {}, reason))),
    );
    for (const empty of [...this.quality.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE)) {
      empty.remove();
    }
  }

  #drawGate(about) {
    const { gate } = about;
    const reasons = gate?.reasons ?? [];
    const words = gate ? known("gate", gate.verdict) : t("gate.none");
    this.gate.replaceChildren(el("p", { className: gate && gate.verdict !== "usual" ? "warn" : "" }, words));
    if (reasons.length > 0) {
      this.gate.append(el("ul", { className: "reasons" }, reasons.map((reason) => el("li", {}, reason))));
    }
    if (about.changed?.length > 0) {
      this.gate.append(el("p", { className: "warn" }, t("case.changed", { what: about.changed.map((name) => known("changed", name)).join(", ") })));
    }
  }
}

function part(title, body, isOpen) {
  return el("details", { className: "panel", open: isOpen }, el("summary", {}, t(title)), body);
}

function namesOf(candidate) {
  const names = candidate.names ?? [];
  return (Array.isArray(names) ? names : [names]).join(", ");
}

function line(entry) {
  const state = entry.to ? known("state", entry.to) : "";
  const words = [known("event", entry.event), state && `→ ${state}`, entry.reason].filter(Boolean).join(" ");
  return el("li", {}, el("span", { className: "soft" }, when(entry.utc)), " ", el("b", {}, entry.user ?? ""), " ", words);
}
