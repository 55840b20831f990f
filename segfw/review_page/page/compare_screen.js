// Several readings of one case side by side, at the same place: draft, folds, earlier versions, and what was saved last.

import { el, keepingFocus, say } from "./dom.js";
import { OpenCase } from "./open_case.js";
import { PlainViewer } from "./plain_viewer.js";
import { PLANES, PLANE_NAMES } from "./planes.js";
import { actionButton } from "./dom.js";
import { sizeUnit, summaryOfEdits } from "./edit_summary.js";
import { known, number, t } from "./text.js";
import { windowsOf } from "./windows.js";

const MOST_PANES = 4;
const STEPS = { slice_next: 1, slice_previous: -1, slice_next_10: 10, slice_previous_10: -10 };

export class CompareScreen {
  constructor(app) {
    this.app = app;
    this.name = "case";
    this.panes = [];
    this.plane = "axial";
    this.bar = el("div", { className: "bar", role: "toolbar", "aria-label": t("bar.view") });
    this.kinds = el("fieldset", { className: "kinds" });
    this.grid = el("div", { className: "panes", tabIndex: 0, "aria-label": t("viewer.label") });
    this.table = el("div", { className: "differences" });
    this.element = el("div", { className: "compare-screen" }, el("h1", {}, t("compare.title")), this.kinds, this.bar, this.grid, this.table);
  }

  /** ``shown`` are kinds to begin with; ``mine`` an array that is not saved yet. */
  async start(id, { shown = null, mine = null } = {}) {
    this.mine = mine;
    // Looking is no work on the case: it is read, and never held.
    this.open = new OpenCase({ ...this.app.session, read_only: true }, () => {});
    await this.open.load(id);
    const { about } = this.open;
    const versions = about.versions.map(({ number: version }) => `version_${version}`);
    const all = [...(mine ? ["mine"] : []), ...(about.compare ?? ["draft", ...versions])];
    this.all = [...new Set(all)];
    const newest = versions.at(-1);
    this.shown = shown ?? [...new Set(["draft", newest ?? this.all.find((kind) => kind !== "draft")])].filter(Boolean);
    this.element.firstChild.textContent = t("compare.of", { case: id });
    this.voxel = middleOf(about, this.open.image.dims);
    await this.#draw();
    this.#drawBar();
    document.body.dataset.ready = `compare ${id}`;
    this.grid.focus({ preventScroll: true });
  }

  async #draw() {
    this.panes.forEach((pane) => pane.viewer.close());
    const hosts = this.shown.map((kind) => el("div", { className: "pane" }, el("h2", {}, kindName(kind)), el("div", { className: "viewer small" })));
    this.grid.replaceChildren(...hosts);
    this.panes = [];
    for (const [at, kind] of this.shown.entries()) {
      this.panes.push({ kind, ...(await this.#pane(hosts[at].lastChild, kind)) });
    }
    this.#drawKinds();
    this.#drawTable();
    this.#place();
  }

  async #pane(host, kind) {
    const { about, image, imageBuffer } = this.open;
    const words = Object.fromEntries(PLANE_NAMES.map((plane) => [plane, t(`plane.${plane}`)]));
    const viewer = new PlainViewer(host, { onSlices() {}, onFrame() {}, onLost() {} }, words);
    await viewer.start();
    await viewer.show(imageBuffer, image, { isPicture: about.is_picture, hasLetters: about.has_letters });
    const values = kind === "mine" ? this.mine : await this.open.other(kind);
    if (!image.isColour) {
      const [window] = windowsOf(image.values, about.is_ct, this.app.session.windows);
      viewer.setWindow(...(about.is_ct ? [window.low, window.high] : [window.low * image.slope + image.intercept, window.high * image.slope + image.intercept]));
    }
    viewer.setMask(values);
    viewer.set({ layout: "one", isRadiological: this.app.preferences.isRadiological });
    viewer.over.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    viewer.over.addEventListener("pointerdown", (event) => {
      const at = viewer.at(event.clientX, event.clientY);
      if (at?.isInside) {
        this.voxel = at.voxel;
        this.#place();
      }
    });
    return { viewer, values };
  }

  #wheel(event) {
    event.preventDefault();
    this.#step(event.deltaY < 0 ? 1 : -1);
  }

  #step(by) {
    const { through } = PLANES[this.plane];
    const most = this.open.image.dims[through] - 1;
    this.voxel[through] = Math.max(0, Math.min(most, this.voxel[through] + by));
    this.#place();
  }

  #place() {
    for (const { viewer } of this.panes) {
      viewer.set({ plane: this.plane });
      viewer.setVoxel(this.voxel);
    }
  }

  #drawKinds() {
    const boxes = this.all.map((kind) => {
      const box = el("input", { type: "checkbox", checked: this.shown.includes(kind), onchange: () => this.#choose(kind, box.checked), "aria-label": kindName(kind) });
      return el("label", {}, box, kindName(kind));
    });
    keepingFocus(this.kinds, () => this.kinds.replaceChildren(el("legend", {}, t("compare.shown")), ...boxes));
  }

  async #choose(kind, isShown) {
    this.shown = isShown ? [...this.shown, kind] : this.shown.filter((each) => each !== kind);
    if (this.shown.length > MOST_PANES) {
      this.shown.shift();
      say(t("compare.most", { most: MOST_PANES }));
    }
    await this.#draw().catch((error) => say(error.message, "error"));
  }

  #drawBar() {
    const run = (id) => this.run(id);
    this.bar.replaceChildren(
      actionButton("slice_previous", run),
      actionButton("slice_next", run),
      actionButton("plane_next", run, { text: t(`plane.${this.plane}`) }),
      actionButton("zoom_out", run, { text: "−" }),
      actionButton("zoom_in", run, { text: "+" }),
      el("button", { type: "button", className: "act", onclick: () => this.app.go("case", this.open.id) }, t("compare.back")),
    );
  }

  /** In figures: each reading against the first one that is shown. */
  #drawTable() {
    const [first, ...others] = this.panes;
    const { unit, each, digits } = sizeUnit(this.open.about.is_picture, this.open.image.spacing_mm);
    const rows = others.flatMap(({ kind, values }) =>
      summaryOfEdits(first.values, values, each, this.open.about.structures)
        .filter(({ added, removed }) => added + removed > 0)
        .map(({ label, before, after, added, removed }) => [label, kindName(kind), number(before, digits), number(after, digits), `+${number(added)} −${number(removed)}`]),
    );
    if (first === undefined || rows.length === 0) {
      this.table.replaceChildren(el("p", { className: "soft" }, others.length > 0 ? t("compare.same") : ""));
      return;
    }
    const head = ["structure", "reading", "first", "other", "voxels"].map((name) => el("th", { scope: "col", className: ["structure", "reading"].includes(name) ? "text" : "" }, t(`compare.column.${name}`, { first: kindName(first.kind), unit })));
    this.table.replaceChildren(el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, at) => el("td", { className: at < 2 ? "text" : "" }, cell)))))));
  }

  run(id, { isDown = true } = {}) {
    if (!isDown || this.panes.length === 0) {
      return;
    }
    if (id in STEPS) {
      this.#step(STEPS[id]);
    } else if (id === "plane_next" && !this.open.about.is_picture) {
      this.plane = PLANE_NAMES[(PLANE_NAMES.indexOf(this.plane) + 1) % PLANE_NAMES.length];
      this.#place();
      keepingFocus(this.bar, () => this.#drawBar());
    } else if (id === "zoom_in" || id === "zoom_out") {
      this.panes.forEach(({ viewer }) => viewer.zoom(id === "zoom_in" ? 1.25 : 0.8));
    } else if (id === "zoom_reset") {
      this.panes.forEach(({ viewer }) => viewer.zoom(null));
    } else if (id === "contour") {
      this.panes.forEach(({ viewer }) => viewer.set({ maskMode: viewer.view.maskMode === "contour" ? "both" : "contour" }));
    }
  }

  async close() {
    this.panes.forEach((pane) => pane.viewer.close());
    await this.open?.close();
  }
}

function kindName(kind) {
  const [, name, number_] = /^([a-z]+)_(\d+)$/.exec(kind) ?? [];
  return name === "fold" || name === "version" ? t(`compare.${name}`, { n: number_ }) : known("compare", kind);
}

/** The middle of the first structure, else of the volume. */
function middleOf(about, dims) {
  const slices = about.structures.find((structure) => structure.slices?.length > 0)?.slices;
  const voxel = dims.map((size) => Math.floor((size - 1) / 2));
  if (slices) {
    voxel[2] = slices[Math.floor(slices.length / 2)];
  }
  return voxel;
}
