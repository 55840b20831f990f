// Signing: what was changed, in words and millilitres, and then a name and what the name stands for.

import * as api from "./api.js";
import { ask, el, say } from "./dom.js";
import { sizeUnit, summaryOfEdits } from "./edit_summary.js";
import { OpenCase } from "./open_case.js";
import { sample } from "./structures_panel.js";
import { known, number, t, when } from "./text.js";

const MEANINGS = ["authorship", "review", "responsibility"];
const FORMATS = ["nifti", "seg.nrrd", "dicom-seg", "rtstruct", "bids"];

export class SignScreen {
  constructor(app) {
    this.app = app;
    this.name = "sign";
    this.element = el("div", { className: "sign-screen" });
  }

  async start(id) {
    this.open = new OpenCase({ ...this.app.session, read_only: true }, () => {});
    await this.open.load(id);
    const draft = await this.open.draft();
    const { about } = this.open;
    const size = sizeUnit(about.is_picture, this.open.image.spacing_mm);
    const rows = summaryOfEdits(draft, this.open.editor.values, size.each, about.structures);
    this.element.replaceChildren(
      el("h1", {}, t("sign.title", { case: id })),
      el("p", {}, el("span", { className: `state ${about.state}` }, known("state", about.state)), " ", about.version === 0 ? t("case.draft") : t("case.version", { version: about.version })),
      el("h2", {}, t("sign.changes")),
      this.#table(rows, about.structures, size),
      this.#act(),
    );
    document.body.dataset.ready = `sign ${id}`;
    this.element.querySelector("input, button")?.focus({ preventScroll: true });
  }

  #table(rows, structures, { unit, digits }) {
    if (rows.length === 0) {
      return el("p", { className: "soft" }, t("sign.empty"));
    }
    const names = ["structure", "decision", "before", "after", "change", "voxels"];
    const head = el("tr", {}, names.map((name) => el("th", { scope: "col", className: name === "structure" || name === "decision" ? "text" : "" }, t(`sign.column.${name}`, { unit }))));
    const body = rows.map(({ index, label, before, after, added, removed }) => {
      const decision = decisionOn(structures.find((each) => each.index === index)?.decision, added + removed);
      const difference = after - before;
      return el(
        "tr",
        {},
        el("td", { className: "text" }, sample(index), " ", label),
        el("td", { className: "text" }, decision ? t(`decision.${decision}`) : t("decision.open")),
        el("td", {}, number(before, digits)),
        el("td", {}, number(after, digits)),
        el("td", {}, difference === 0 ? "0" : `${difference > 0 ? "+" : "−"}${number(Math.abs(difference), digits)}`),
        el("td", {}, added + removed === 0 ? t("sign.unchanged") : `+${number(added)} −${number(removed)}`),
      );
    });
    return el("div", { className: "table-frame" }, el("table", {}, el("thead", {}, head), el("tbody", {}, body)));
  }

  #act() {
    const { about } = this.open;
    if (about.changed?.length > 0) {
      return el("p", { className: "warn" }, t("case.changed", { what: about.changed.map((name) => known("changed", name)).join(", ") }));
    }
    if (about.state === "SIGNED") {
      return this.#signed();
    }
    if (about.state !== "REVIEWED" || this.app.session.read_only) {
      const why = this.app.session.read_only ? t("readonly.session") : t("sign.not_reviewed");
      return el("div", {}, el("p", { className: "warn" }, why), el("button", { type: "button", onclick: () => this.app.go("case", this.open.id) }, t("sign.back")));
    }
    return this.#form();
  }

  #form() {
    const { about } = this.open;
    const name = el("input", { id: "sign-name", autocomplete: "name", required: true });
    const meanings = this.app.session.meanings ?? MEANINGS;
    const meaning = el("select", { id: "sign-meaning" }, meanings.map((value) => el("option", { value }, known("meaning", value))));
    const form = el(
      "form",
      {
        className: "sign-form",
        onsubmit: (event) => {
          event.preventDefault();
          this.#sign(name.value.trim(), meaning.value);
        },
      },
      el("h2", {}, t("sign.sign")),
      el("p", {}, t("sign.statement", { version: about.version, sha256: (about.sha256 ?? "").slice(0, 16) })),
      el("label", { for: "sign-name" }, t("sign.name"), name),
      el("label", { for: "sign-meaning" }, t("sign.meaning"), meaning),
      el("p", { className: "soft" }, t("sign.declared", { user: this.app.session.user })),
      el(
        "div",
        { className: "buttons" },
        el("button", { type: "submit", className: "primary", "data-action": "sign" }, t("sign.button")),
        el("button", { type: "button", onclick: () => this.app.go("case", this.open.id) }, t("sign.back")),
      ),
    );
    return form;
  }

  async #sign(name, meaning) {
    if (name === "") {
      say(t("sign.name_needed"), "warn");
      return;
    }
    try {
      await api.signCase({ case: this.open.id, name, meaning, sha256: this.open.about.sha256 });
      this.app.finished({ kind: "signed", case: this.open.id });
      say(t("sign.done", { case: this.open.id }));
      await this.start(this.open.id);
    } catch (error) {
      say(error.message, "error");
    }
  }

  #signed() {
    const { about } = this.open;
    const signed = [...about.history].reverse().find(({ to }) => to === "SIGNED");
    const words = signed ? t("sign.signed_by", { user: about.signed_name ?? signed.user, when: when(signed.utc) }) : known("state", "SIGNED");
    return el(
      "div",
      { className: "signed" },
      el("p", {}, words),
      this.#delivery(),
      el(
        "div",
        { className: "buttons" },
        el("button", { type: "button", className: "primary", "data-action": "next", onclick: () => this.app.nextItem(1) }, t("sign.next")),
        el("button", { type: "button", "data-action": "amend", onclick: () => this.#amend(), disabled: Boolean(this.app.session.read_only) }, t("sign.amend")),
      ),
    );
  }

  #delivery() {
    const formats = (this.app.session.formats ?? FORMATS).map((format) => {
      const box = el("input", { type: "checkbox", value: format, checked: format === "nifti" });
      return el("label", {}, box, format);
    });
    const files = el("ul", { className: "files", role: "status" });
    const deliver = async () => {
      const chosen = formats.map((label) => label.firstChild).filter(({ checked }) => checked).map(({ value }) => value);
      try {
        const answer = await api.deliverCase({ case: this.open.id, formats: chosen });
        const place = answer.folder ? t("deliver.written", { folder: answer.folder }) : "";
        files.replaceChildren(place, ...answer.files.map((file) => el("li", {}, el("code", {}, file))));
      } catch (error) {
        say(error.message, "error");
      }
    };
    const isReadOnly = Boolean(this.app.session.read_only);
    return el(
      "fieldset",
      {},
      el("legend", {}, t("deliver.title")),
      el("div", { className: "row" }, formats),
      el("button", { type: "button", "data-action": "deliver", disabled: isReadOnly, onclick: deliver }, t("deliver.button")),
      files,
    );
  }

  async #amend() {
    const reason = el("textarea", { id: "amend-reason", rows: 3 });
    const choice = await ask(t("amend.title"), [el("p", {}, t("amend.text")), el("label", { className: "field", for: "amend-reason" }, el("span", {}, t("amend.reason")), reason)], [
      ["amend", t("sign.amend"), "primary"],
      ["no", t("dialog.cancel"), ""],
    ]);
    if (choice !== "amend") {
      return;
    }
    try {
      await api.amendCase({ case: this.open.id, reason: reason.value });
      this.app.go("case", this.open.id);
    } catch (error) {
      say(error.message, "error");
    }
  }

  run() {}

  async close() {
    await this.open?.close();
  }
}

/** A structure that was changed is edited, also where it was accepted after that. */
function decisionOn(decision, changedVoxels) {
  return decision === "accept" && changedVoxels > 0 ? "edit" : decision;
}
