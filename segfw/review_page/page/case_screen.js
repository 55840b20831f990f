// One case: picture in the middle, structures on the left, what may be wrong on the right. Keys and buttons end in ``run``.

import * as api from "./api.js";
import { nextRadius, placesBetween } from "./brush.js";
import { ClickTool } from "./click_tool.js";
import { ask, el, keepingFocus, say } from "./dom.js";
import { FindingsPanel } from "./findings_panel.js";
import { IN_WINDOW, PLACES, REFINED, labelsOf } from "./mask_editor.js";
import { OpenCase } from "./open_case.js";
import { LAYOUTS, MASK_MODES } from "./picture.js";
import { PLANES, PLANE_NAMES, growsToTheRight, patientSide } from "./planes.js";
import { gunzipIfNeeded } from "./gzip.js";
import { StructuresPanel } from "./structures_panel.js";
import { known, number, t } from "./text.js";
import { DrawBar, ViewBar } from "./toolbars.js";
import { canDraw } from "./viewer.js";
import { windowsOf } from "./windows.js";

const ZOOM_STEP = 1.25;
const TURN_DEGREES = 15;
const RECOVERY_MS = 500; // until a lost graphics card may be asked again
const REJECT_REASONS = ["image-bad", "wrong-anatomy", "model-failed", "not-for-this-model", "other"];

export class CaseScreen {
  /** @param {{session: object, go: function, preferences: object, nextItem: function}} app */
  constructor(app) {
    this.app = app;
    this.name = "case";
    this.tool = "look";
    this.isBall = false;
    this.radius_mm = 3;
    this.region = -1;
    this.stroke = null;
    this.pointer = null; // where it rests on the page, while it is over the picture
    this.windows = [];
    this.windowAt = 0;
    this.open = new OpenCase(app.session, (what, detail) => this.#told(what, detail));
    this.clicks = new ClickTool(this);
    const run = (id) => this.run(id);
    this.structures = new StructuresPanel({ select: (index, isFar) => this.select(index, isFar), toggle: (index) => this.#toggle(index), run });
    this.findings = new FindingsPanel({ goToRegion: (at) => this.goToRegion(at), run });
    this.viewBar = new ViewBar({ run, set: (changes) => this.viewer.set(changes), window: (at) => this.setWindow(at), channel: (at) => this.#setChannel(at) });
    this.drawBar = new DrawBar({ run, placeLabel: (index) => this.#placeLabel(index), group: (group) => this.#setGroup(group) });
    this.host = el("div", { className: "viewer", tabIndex: 0, role: "application", "aria-label": t("viewer.label") });
    this.status = el("div", { className: "status" });
    this.notice = el("div", { className: "notice", role: "status" });
    this.title = el("div", { className: "case-title" });
    this.element = el(
      "div",
      { className: "case-screen" },
      el("div", { className: "left" }, this.title, this.structures.element),
      el("div", { className: "middle" }, this.viewBar.element, this.drawBar.element, this.notice, this.host, this.status),
      el("div", { className: "right" }, this.findings.element),
    );
  }

  async start(id, { isWhole = false, structure = null, region = null } = {}) {
    this.#notice(t("case.loading", { case: id }));
    const isPlain = !canDraw();
    this.isPlain = isPlain;
    this.listening = new AbortController();
    api.connection.addEventListener("back", () => this.open.editor && this.#noticeOfState(), { signal: this.listening.signal });
    const told = {
      onSlices: (plane, slice) => this.open.viewing.see(plane, slice),
      onFrame: () => this.#framed(),
      onLost: () => this.#lost(),
    };
    const words = Object.fromEntries([...PLANE_NAMES, "render"].map((plane) => [plane, t(`plane.${plane}`)]));
    this.viewer = await this.app.pictureFor(this.host, told, words, isPlain);
    await this.open.load(id, isWhole);
    if (this.isClosed) {
      return;
    }
    await this.#showImage();
    if (this.isClosed) {
      return;
    }
    this.#listen();
    const { about } = this.open;
    const first = about.structures.find(({ label }) => label === structure) ?? about.structures.find(({ decision }) => !decision) ?? about.structures[0];
    if (first !== undefined) {
      this.select(first.index, true);
    }
    const at = about.regions.findIndex((each) => String(each.id) === String(region));
    if (at >= 0) {
      this.goToRegion(at);
    }
    this.#noticeOfState();
    this.update();
    this.host.focus({ preventScroll: true });
  }

  async #showImage() {
    const { about, image, imageBuffer, editor } = this.open;
    const { preferences } = this.app;
    await this.viewer.show(imageBuffer, image, {
      isPicture: about.is_picture,
      hasLetters: about.has_letters,
      hasGroups: (this.app.session.groups ?? 1) > 1,
    });
    this.viewer.set({ maskMode: preferences.maskMode, layout: preferences.layout, isRadiological: preferences.isRadiological, opacity: preferences.opacity });
    this.windows = image.isColour || about.has_image === false ? [] : windowsOf(image.values, about.is_ct, this.app.session.windows).map((each) => scaled(each, image, about.is_ct));
    if (this.windows.length > 0) {
      this.setWindow(Math.min(this.windowAt, this.windows.length - 1));
    } else if (about.has_image === false) {
      this.viewer.setWindow(1000, 1001);
    }
    this.viewer.setMask(editor.values);
    this.radius_mm = startRadius(image);
  }

  /** The list of keys ends here: one name, one thing that is done. What is held with a key is switched with a button. */
  run(id, { isDown = true, isKey = false } = {}) {
    if (!this.open.editor) {
      return;
    }
    if (id === "hide" || id === "alone") {
      const isOn = id === "hide" ? this.viewer.view.isMaskHidden : this.viewer.view.alone !== null;
      this.#hold(id, isKey ? isDown : !isOn);
      return;
    }
    if (!isDown) {
      return;
    }
    const action = this.#actions()[id];
    if (action !== undefined) {
      Promise.resolve(action()).catch((error) => this.failed(error));
    }
  }

  #hold(id, isOn) {
    if (id === "hide") {
      this.viewer.set({ isMaskHidden: isOn });
    } else {
      this.viewer.set({ alone: isOn ? new Set(this.labelsOf(this.selected)) : null });
    }
    this.update();
  }

  #actions() {
    const candidates = Object.fromEntries([1, 2, 3, 4, 5, 6].map((n) => [`candidate_${n}`, () => this.takeCandidate(n)]));
    return { ...this.#decisions(), ...this.#looking(), ...this.#drawing(), ...candidates };
  }

  #decisions() {
    return {
      accept: () => this.decide("accept"),
      edit: () => this.decide("edit"),
      absent: () => this.decide("absent"),
      reject: () => this.reject(),
      finish: () => this.finish(),
      structure_next: () => this.#stepStructure(1),
      structure_previous: () => this.#stepStructure(-1),
      region_next: () => this.#stepRegion(1),
      region_previous: () => this.#stepRegion(-1),
    };
  }

  #looking() {
    const { viewer } = this;
    const { view } = viewer;
    const slices = (step) => viewer.stepSlice(view.plane, step);
    return {
      slice_next: () => slices(1),
      slice_previous: () => slices(-1),
      slice_next_10: () => slices(10),
      slice_previous_10: () => slices(-10),
      plane_next: () => this.#show({ plane: after(PLANE_NAMES, view.plane) }),
      cursor_up: () => this.#moveCursor(0, 1),
      cursor_down: () => this.#moveCursor(0, -1),
      cursor_left: () => this.#moveCursor(-1, 0),
      cursor_right: () => this.#moveCursor(1, 0),
      contour: () => this.#show({ maskMode: after(MASK_MODES, view.maskMode) }, "maskMode"),
      doubt: () => this.showDoubt(),
      window: () => this.setWindow((this.windowAt + 1) % Math.max(1, this.windows.length)),
      convention: () => this.#show({ isRadiological: !view.isRadiological }, "isRadiological"),
      layout: () => this.#show({ layout: after(LAYOUTS, view.layout) }, "layout"),
      zoom_in: () => viewer.zoom(ZOOM_STEP),
      zoom_out: () => viewer.zoom(1 / ZOOM_STEP),
      zoom_reset: () => viewer.zoom(null),
      turn_left: () => viewer.turn(TURN_DEGREES),
      turn_right: () => viewer.turn(-TURN_DEGREES),
    };
  }

  #drawing() {
    const { editor } = this.open;
    return {
      brush: () => this.setTool("brush"),
      erase: () => this.setTool("erase"),
      ball: () => this.#draws(() => (this.isBall = !this.isBall)),
      size_down: () => this.#resize(false),
      size_up: () => this.#resize(true),
      dab: () => (this.tool === REFINED ? this.clickAtCrossing(!this.clicks.isOutside) : this.dabAtCrossing()),
      ...this.#clicking(),
      fill: () => this.change("fill", () => editor.fillHoles(this.viewer.view.plane, this.#slice())),
      interpolate: () => this.interpolate(),
      lock: () => this.#draws(() => (editor.rules.isLocked = !editor.rules.isLocked)),
      place: () => this.#draws(() => this.#nextPlace()),
      undo: () => this.#undo("undo"),
      redo: () => this.#undo("redo"),
      save: () => this.save(),
    };
  }

  #clicking() {
    if (!this.clicks.isThere) {
      const none = () => say(t("refine.none"));
      return { refine: none, refine_side: none, refine_other: none, refine_accept: none, refine_next: none };
    }
    return {
      refine: () => this.setTool(REFINED),
      refine_side: () => this.#draws(() => (this.clicks.isOutside = !this.clicks.isOutside)),
      refine_other: () => this.clickAtCrossing(this.clicks.isOutside),
      refine_accept: () => this.clicks.accept(),
      refine_next: () => this.clicks.goToNext(),
    };
  }

  // What is looked at

  #show(changes, preference = null) {
    this.viewer.set(changes);
    if (preference !== null) {
      this.app.prefer({ [preference]: changes[preference] });
    }
    this.update();
  }

  #slice() {
    return this.viewer.voxel[PLANES[this.viewer.view.plane].through];
  }

  #moveCursor(right, up) {
    const { plane, isRadiological } = this.viewer.view;
    const { across, up: upAxis } = PLANES[plane];
    const voxel = [...this.viewer.voxel];
    voxel[across] += growsToTheRight(plane, isRadiological || this.viewer.isFlat) ? right : -right;
    voxel[upAxis] += up;
    this.viewer.setVoxel(voxel);
    this.#cursorAt(plane, this.viewer.voxel);
  }

  setWindow(at) {
    const window = this.windows[at];
    if (window !== undefined) {
      this.windowAt = at;
      this.viewer.setWindow(window.low, window.high);
      this.update();
    }
  }

  async showDoubt() {
    const { about } = this.open;
    if (this.isPlain || about.hidden || about.has_doubt === false) {
      say(about.hidden ? t("blind.hidden") : t("doubt.none"));
      return;
    }
    if (this.viewer.doubt === null) {
      await this.viewer.setDoubt(await this.open.doubt());
    } else {
      this.viewer.showDoubt(!this.viewer.view.isDoubtShown);
    }
    this.update();
  }

  #toggle(index) {
    const hidden = new Set(this.viewer.view.hidden);
    for (const label of this.labelsOf(index)) {
      if (hidden.has(label)) {
        hidden.delete(label);
      } else {
        hidden.add(label);
      }
    }
    this.viewer.set({ hidden });
    this.update();
  }

  /** Labels of voxels that make a structure: more than one for nested regions. */
  labelsOf(index) {
    return labelsOf(this.app.session.structures, index, this.open.group);
  }

  // Structures and regions

  structure() {
    return this.open.about.structures.find(({ index }) => index === this.selected) ?? null;
  }

  #label() {
    return this.open.editor.rules.label;
  }

  select(index, isFar = false) {
    this.selected = index;
    this.open.editor.rules.label = index;
    const structure = this.structure();
    this.viewer.set({ selected: index });
    if (isFar && structure?.slices?.length > 0) {
      const voxel = [...this.viewer.voxel];
      voxel[2] = structure.slices[Math.floor(structure.slices.length / 2)];
      this.viewer.setVoxel(voxel);
    }
    this.#showCursor();
    this.update();
  }

  #stepStructure(step) {
    const { structures } = this.open.about;
    const at = structures.findIndex(({ index }) => index === this.selected);
    const next = structures[(at + step + structures.length) % structures.length];
    if (next !== undefined) {
      this.select(next.index, true);
    }
  }

  goToRegion(at) {
    const region = this.open.about.regions[at];
    if (region === undefined) {
      return;
    }
    this.region = at;
    const structure = this.open.about.structures.find(({ label }) => label === region.label);
    if (structure !== undefined) {
      this.select(structure.index);
    }
    this.viewer.set({ box: boxOf(region.box_xyz) });
    if (region.centre_xyz) {
      this.viewer.setVoxel(region.centre_xyz);
    }
    this.update();
  }

  #stepRegion(step) {
    const count = this.open.about.regions.length;
    if (count === 0) {
      say(this.open.about.hidden ? t("blind.hidden") : t("regions.none"));
      return;
    }
    const at = this.region < 0 ? (step > 0 ? 0 : count - 1) : (this.region + step + count) % count;
    this.goToRegion(at);
  }

  async takeCandidate(n) {
    const region = this.open.about.regions[this.region];
    const box = boxOf(region?.box_xyz);
    if (!box || !region.candidates?.[n - 1]) {
      say(t("regions.no_candidate", { n }));
      return;
    }
    const number_ = region.candidates[n - 1].n ?? n;
    const mask = await gunzipIfNeeded(await api.getBytes(this.open.id, `candidate/${encodeURIComponent(region.id)}/${number_}`, this.open.isWhole ? { whole: 1 } : {}));
    const voxels = box.reduce((product, [first, behind]) => product * (behind - first), 1);
    if (mask.length !== voxels) {
      throw new Error(t("regions.wrong_size", { n }));
    }
    this.change("candidate", () => this.open.editor.takeCandidate(box, mask), "candidate");
  }

  // Drawing

  /** One change of the mask that is undone at once. */
  change(name, work, means = "brush") {
    if (!this.#mayDraw()) {
      return null;
    }
    const { editor } = this.open;
    editor.begin(name);
    const answer = work();
    const change = editor.end();
    if (change === null) {
      say(t("draw.nothing"));
    } else {
      this.changed(means);
      say(t(`draw.${name}`, { added: number(change.added), removed: number(change.removed) }));
    }
    return answer;
  }

  changed(means) {
    this.open.usedCandidate ||= means === "candidate";
    this.open.usedBrush ||= means === "brush" || means === REFINED;
    if (means !== REFINED) {
      this.clicks.forget();
    }
    this.viewer.maskChanged(this.open.editor.takeChangedBox());
    this.open.edited();
  }

  #mayDraw() {
    if (!this.open.isEditable) {
      say(this.whyNot(), "warn");
      return false;
    }
    if (this.clicks.isBusy) {
      say(t("refine.wait"));
      return false;
    }
    return this.stroke?.kind !== "draw"; // a change that began inside of another would leave half of it without undo
  }

  #draws(work) {
    if (this.#mayDraw()) {
      work();
      this.#showCursor();
      this.update();
    }
  }

  setTool(tool) {
    this.#draws(() => {
      this.tool = this.tool === tool ? "look" : tool;
    });
  }

  #resize(isLarger) {
    this.radius_mm = nextRadius(this.radius_mm, isLarger);
    this.#showCursor();
    this.update();
  }

  #nextPlace() {
    const { rules } = this.open.editor;
    const places = this.open.editor.intensities === null ? PLACES.filter((place) => place !== IN_WINDOW) : PLACES;
    rules.place = after(places, rules.place);
    this.#windowRule();
  }

  /** The window as it is shown, in stored values of the image. */
  #windowRule() {
    const { editor, image } = this.open;
    const { low, high } = this.viewer.window ?? { low: -Infinity, high: Infinity };
    editor.rules.low = (low - image.intercept) / image.slope;
    editor.rules.high = (high - image.intercept) / image.slope;
  }

  #placeLabel(index) {
    this.open.editor.rules.placeLabel = index;
    this.update();
  }

  dabAtCrossing() {
    if (this.tool === "look") {
      say(t("draw.choose_tool"));
      return;
    }
    this.#windowRule();
    this.change("dab", () => this.#dab(this.viewer.view.plane, this.viewer.voxel));
    this.#cursorAt(this.viewer.view.plane, this.viewer.voxel);
  }

  clickAtCrossing(isInside) {
    if (this.tool !== REFINED) {
      say(t("refine.choose_tool"));
      return undefined;
    }
    return this.clicks.click(this.viewer.voxel, isInside);
  }

  #dab(plane, voxel) {
    this.open.editor.dab(plane, voxel, this.radius_mm, this.isBall ? "ball" : "disc", this.tool === "erase");
  }

  interpolate() {
    const { plane } = this.viewer.view;
    const filled = this.change("interpolate", () => this.open.editor.interpolate(plane, this.#slice()));
    if (filled === 0) {
      say(t("draw.interpolate_how"), "warn");
    }
  }

  #undo(way) {
    if (!this.#mayDraw() || this.stroke !== null) {
      return;
    }
    const change = this.open.editor[way]();
    if (change === null) {
      say(t(`draw.nothing_to_${way}`));
      return;
    }
    this.changed("undo");
    this.update();
  }

  async save() {
    if (!this.#mayDraw()) {
      return;
    }
    if (this.open.conflict) {
      await this.#solveConflict();
      return;
    }
    if (!this.open.isDirty) {
      say(t("save.nothing"));
      await this.open.beat(); // whether the server is back
      return;
    }
    if (await this.open.save()) {
      say(t("save.done", { version: this.open.base }));
      await this.open.refresh();
      this.#noticeOfState();
    }
  }

  // Decisions

  async decide(decision) {
    const structure = this.structure();
    if (structure === null || !this.#mayDraw()) {
      return;
    }
    if (decision === "absent" && !(await this.#eraseIfAbsent(structure))) {
      return;
    }
    const answer = await this.open.decide(structure.label, decision);
    if (answer.asked) {
      const words = typeof answer.asked === "string" ? answer.asked : answer.asked.text;
      const choice = await ask(t("floor.title"), el("p", {}, words), [
        ["look", t("floor.look"), "primary"],
        ["go", t("floor.go"), ""],
      ]);
      if (choice !== "go") {
        return;
      }
      await this.open.decide(structure.label, decision, true);
    }
    await this.open.refresh();
    if (decision === "edit") {
      if (this.tool === "look") {
        this.setTool("brush");
      }
      return;
    }
    const next = this.open.about.structures.find((each) => !each.decision);
    if (next !== undefined) {
      this.select(next.index, true);
    } else {
      say(t("structures.all_decided"));
    }
  }

  /** A structure that is not there must not be in the mask; false if the reader thinks again. */
  async #eraseIfAbsent(structure) {
    const labels = this.labelsOf(structure.index);
    const { values } = this.open.editor;
    let voxels = 0;
    for (let index = 0; index < values.length; index += 1) {
      voxels += labels.includes(values[index]) ? 1 : 0;
    }
    if (voxels === 0) {
      return true;
    }
    const choice = await ask(t("absent.title", { name: structure.label }), el("p", {}, t("absent.text", { voxels: number(voxels) })), [
      ["erase", t("absent.erase"), "primary"],
      ["no", t("absent.no"), ""],
    ]);
    if (choice !== "erase") {
      return false;
    }
    this.change("erase_all", () => labels.forEach((label) => this.open.editor.eraseAll(label)));
    return this.open.save();
  }

  async reject() {
    if (!this.open.isEditable && this.open.about.state !== "REVIEWED") {
      say(this.whyNot(), "warn");
      return;
    }
    const reasons = this.app.session.reject_reasons ?? REJECT_REASONS;
    const choice = el("select", { id: "reject-reason" }, reasons.map((reason) => el("option", { value: reason }, known("reject", reason))));
    const text = el("textarea", { id: "reject-text", rows: 3 });
    const body = [el("p", {}, t("reject.text")), field(t("reject.reason"), choice), field(t("reject.more"), text)];
    const answer = await ask(t("reject.title", { case: this.open.id }), body, [
      ["reject", t("action.reject"), "primary"],
      ["no", t("dialog.cancel"), ""],
    ]);
    if (answer === "reject") {
      await this.open.beat();
      await api.rejectCase({ case: this.open.id, reason: choice.value, text: text.value });
      this.open.isDirty = false;
      this.app.finished({ kind: "rejected", case: this.open.id });
      await this.app.nextItem(1);
    }
  }

  async finish() {
    if (["REVIEWED", "SIGNED"].includes(this.open.about.state)) {
      this.app.go("sign", this.open.id);
      return;
    }
    if (!this.#mayDraw()) {
      return;
    }
    const undecided = this.open.about.structures.filter(({ decision }) => !decision);
    if (undecided.length > 0) {
      say(t("finish.undecided", { names: undecided.map(({ label }) => label).join(", ") }), "warn");
      this.select(undecided[0].index, true);
      return;
    }
    if (await this.open.finish()) {
      this.app.finished({ kind: "reviewed", case: this.open.id });
      this.app.go("sign", this.open.id);
    }
  }

  async #setGroup(group) {
    if (this.open.isEditable && !this.#mayDraw()) {
      this.update();
      return;
    }
    if (await this.open.setGroup(group)) {
      this.viewer.setMask(this.open.editor.values);
    }
    this.update();
  }

  // The pointer

  #listen() {
    const { signal } = this.listening;
    const on = (name, work) => this.viewer.over.addEventListener(name, work, { signal, passive: false });
    on("pointerdown", (event) => this.#down(event));
    on("pointermove", (event) => this.#move(event));
    on("pointerup", (event) => this.#up(event));
    on("pointercancel", (event) => this.#up(event));
    on("pointerleave", () => this.#leave());
    on("contextmenu", (event) => event.preventDefault());
    on("wheel", (event) => this.#wheel(event));
    on("dblclick", (event) => this.#down(event, true));
  }

  #down(event, isDouble = false) {
    this.host.focus({ preventScroll: true });
    const at = this.viewer.at(event.clientX, event.clientY);
    if (at === null) {
      return;
    }
    if (isDouble) {
      if (at.plane !== "render" && this.tool === "look") {
        this.#show({ plane: at.plane });
      }
      return;
    }
    this.viewer.over.setPointerCapture(event.pointerId);
    const last = { x: event.clientX, y: event.clientY };
    const isDrawing = event.button === 0 && this.tool !== "look" && at.plane !== "render";
    if (at.plane === "render") {
      this.stroke = { kind: "turn", last };
    } else if (event.button === 2) {
      this.stroke = { kind: "window", last };
    } else if (event.button === 1) {
      this.stroke = { kind: "pan", last, tile: at.tile };
    } else if (isDrawing && this.tool === REFINED) {
      this.#clickOn(at, event.shiftKey);
    } else if (isDrawing && this.#mayDraw()) {
      this.#beginStroke(at);
    } else if (!isDrawing) {
      this.stroke = { kind: "cross", plane: at.plane };
      this.#crossAt(at);
    }
    event.preventDefault();
  }

  #clickOn(at, isOther) {
    if (at.isInside) {
      this.viewer.setVoxel(at.voxel);
      this.clicks.click(at.voxel, isOther === this.clicks.isOutside);
    }
  }

  #beginStroke(at) {
    this.#windowRule();
    this.viewer.set({ strokePlane: at.plane });
    this.open.editor.begin(this.tool);
    this.stroke = { kind: "draw", plane: at.plane, voxel: at.voxel };
    this.#dab(at.plane, at.voxel);
    this.viewer.maskChanged(this.open.editor.takeChangedBox());
    this.#cursorAt(at.plane, at.voxel);
  }

  #move(event) {
    const at = this.viewer.at(event.clientX, event.clientY);
    const { stroke } = this;
    this.pointer = { x: event.clientX, y: event.clientY };
    if (stroke === null) {
      this.#hover(at);
      return;
    }
    const moved = stroke.last ? { x: event.clientX - stroke.last.x, y: event.clientY - stroke.last.y } : null;
    if (stroke.kind === "draw") {
      this.#stroke(at);
    } else if (stroke.kind === "turn") {
      this.viewer.turn(moved.x / 2, moved.y / 2);
    } else if (stroke.kind === "window") {
      this.#dragWindow(moved);
    } else if (stroke.kind === "pan") {
      this.#dragPan(moved, stroke.tile);
    } else if (stroke.kind === "cross" && at?.plane === stroke.plane) {
      this.#crossAt(at);
    }
    if (moved !== null) {
      stroke.last = { x: event.clientX, y: event.clientY };
    }
  }

  #stroke(at) {
    if (at === null || at.plane !== this.stroke.plane) {
      return;
    }
    for (const voxel of placesBetween(this.stroke.voxel, at.voxel)) {
      this.#dab(at.plane, voxel);
    }
    this.stroke.voxel = at.voxel;
    this.viewer.maskChanged(this.open.editor.takeChangedBox());
    this.#cursorAt(at.plane, at.voxel);
  }

  #up() {
    const { stroke } = this;
    this.stroke = null;
    if (stroke?.kind === "draw") {
      const change = this.open.editor.end();
      this.viewer.set({ strokePlane: null });
      if (change !== null) {
        this.changed("brush");
        this.update();
      }
    }
  }

  #crossAt(at) {
    this.viewer.set({ plane: this.viewer.view.layout === "big" ? this.viewer.view.plane : at.plane });
    if (at.isInside) {
      this.viewer.setVoxel(at.voxel);
    }
  }

  #leave() {
    this.pointer = null;
    if (this.stroke === null) {
      this.#hover(null);
    }
  }

  /** Under a pointer that rests lies another voxel when keys, the wheel or a place that was gone to change the slice. */
  #followPointer() {
    if (!this.pointer || this.stroke !== null) {
      return;
    }
    const at = this.viewer.at(this.pointer.x, this.pointer.y);
    const voxel = at?.isInside ? at.voxel : null;
    if (String(voxel) !== String(this.hovered?.voxel ?? null)) {
      this.#hover(at);
    }
  }

  #hover(at) {
    this.hovered = at?.isInside ? at : null;
    const isBrush = this.tool !== "look" && this.hovered !== null;
    this.#cursorAt(isBrush ? at.plane : null, at?.voxel);
    this.#drawStatus();
  }

  /** Shows the brush where it would draw; ``null`` hides it. */
  #cursorAt(plane, voxel = null) {
    const isShown = plane !== null && this.tool !== "look";
    const isClick = this.tool === REFINED;
    const sign = isClick ? (this.clicks.isOutside ? "−" : "+") : null;
    const cursor = isShown
      ? { plane, voxel, sign, radius_mm: this.radius_mm, label: this.#label(), isErasing: this.tool === "erase", isBall: this.isBall }
      : null;
    this.viewer.view.cursor = cursor;
    this.viewer.invalidateOverlay();
  }

  #showCursor() {
    const { cursor } = this.viewer.view;
    this.#cursorAt(cursor?.plane ?? null, cursor?.voxel ?? null);
  }

  #dragWindow({ x, y }) {
    const window = this.viewer.window;
    if (!window || this.windows.length === 0) {
      return;
    }
    const width = Math.max(1e-3, (window.high - window.low) * Math.exp(x / 200));
    const centre = (window.high + window.low) / 2 - (y / 300) * (window.high - window.low);
    this.windowAt = -1;
    this.viewer.setWindow(centre - width / 2, centre + width / 2);
    this.viewBar.window.value = "-1";
    this.update();
  }

  #dragPan({ x, y }, tile) {
    const { across, up } = PLANES[tile.plane];
    const { spacing_mm } = this.open.image;
    const by_mm = [0, 0, 0];
    by_mm[across] = ((x * this.viewer.ratio) / tile.width) * (tile.acrossEdges[1] - tile.acrossEdges[0]) * spacing_mm[across];
    by_mm[up] = ((-y * this.viewer.ratio) / tile.height) * (tile.upEdges[1] - tile.upEdges[0]) * spacing_mm[up];
    this.viewer.pan(by_mm);
  }

  #wheel(event) {
    event.preventDefault();
    const at = this.viewer.at(event.clientX, event.clientY);
    const step = event.deltaY < 0 ? 1 : -1;
    if (event.ctrlKey || this.viewer.isFlat) {
      this.viewer.zoom(step > 0 ? ZOOM_STEP : 1 / ZOOM_STEP);
    } else if (at !== null && at.plane !== "render") {
      this.viewer.stepSlice(at.plane, step);
    }
  }

  // What is told

  #told(what, detail) {
    if (what === "conflict") {
      this.#solveConflict().catch((error) => this.failed(error));
    } else if (what === "offline") {
      this.failed(detail);
    } else if (what === "held") {
      this.#noticeOfState();
    } else if (what === "error") {
      this.failed(detail);
    } else if (what === "case" && this.open.about.state !== detail.state) {
      this.#noticeOfState();
    }
    if (this.viewer?.nifti) {
      this.update();
    }
  }

  async #solveConflict() {
    if (this.isAsking) {
      return;
    }
    this.isAsking = true;
    const { newest, author } = this.open.conflict;
    const choice = await ask(t("conflict.title"), [el("p", {}, t("conflict.text", { author: author ?? "?", version: newest })), el("p", {}, t("conflict.what"))], [
      ["theirs", t("conflict.theirs"), ""],
      ["look", t("conflict.look"), "primary"],
      ["mine", t("conflict.mine"), ""],
    ]);
    this.isAsking = false;
    if (choice === "theirs") {
      await this.open.takeTheirs();
      this.viewer.setMask(this.open.editor.values);
      say(t("conflict.took_theirs", { version: newest }));
    } else if (choice === "mine") {
      if (await this.open.keepMine()) {
        say(t("save.done", { version: this.open.base }));
      }
    } else if (choice === "look") {
      await this.app.compareBeside(this, `version_${newest}`);
    }
    this.update();
  }

  whyNot() {
    const { session } = this.app;
    if (session.read_only) {
      return t("readonly.session");
    }
    if (["REVIEWED", "SIGNED", "REJECTED"].includes(this.open.about.state)) {
      return t(`readonly.${this.open.about.state}`);
    }
    return this.open.heldBy ? t("readonly.held", { user: this.open.heldBy }) : (this.open.whyNot ?? t("readonly.session"));
  }

  #noticeOfState() {
    const { about, isEditable } = this.open;
    if (!isEditable) {
      this.#notice(this.whyNot(), about.state === "REVIEWED" ? "" : "warn");
      if (about.state === "REVIEWED" && !this.app.session.read_only) {
        this.notice.append(el("button", { type: "button", className: "act", "data-action": "again", onclick: () => this.#reviewAgain() }, t("case.again")));
      }
    } else if (about.has_image === false) {
      this.#notice(t("case.no_image"), "warn");
    } else if (this.isPlain) {
      this.#notice(t("case.no_webgl"), "warn");
    } else if (about.is_straightened) {
      this.#notice(t("case.straightened"));
    } else if (about.box && about.box.is_whole === false) {
      const whole = el("button", { type: "button", className: "act", onclick: () => this.app.go("case", this.open.id, { isWhole: true }) }, t("case.whole"));
      this.notice.replaceChildren(el("span", {}, t("case.box")), whole);
      this.notice.className = "notice";
    } else {
      this.#notice("");
    }
  }

  async #reviewAgain() {
    await this.open.take().catch((error) => this.failed(error));
    await this.open.refresh();
    this.#noticeOfState();
    this.update();
  }

  async #setChannel(channel) {
    const { view, voxel } = this.viewer;
    await this.open.setChannel(channel);
    this.windowAt = 0;
    await this.#showImage();
    this.viewer.set({ ...view, isDoubtShown: false });
    this.viewer.setVoxel(voxel);
    this.update();
  }

  #notice(text, kind = "") {
    this.notice.textContent = text;
    this.notice.className = `notice ${kind}`;
  }

  failed(error) {
    if (error instanceof api.NoServer) {
      this.#notice(t("offline", { port: window.location.port }), "error");
    } else if (error instanceof api.NotLetIn) {
      this.#notice(t("not_let_in"), "error");
    } else {
      say(error.message, "error");
    }
  }

  /** The graphics card was taken away (a laptop that slept, a driver that was renewed): everything is set up anew. */
  async #lost() {
    this.#notice(t("case.lost"), "warn");
    const { view, voxel, window } = this.viewer;
    const isDoubt = view.isDoubtShown;
    const old = this.viewer;
    await new Promise((resolve) => setTimeout(resolve, RECOVERY_MS));
    this.isPlain = !canDraw();
    this.viewer = await this.app.pictureFor(this.host, old.told, old.words, this.isPlain);
    await this.#showImage();
    this.viewer.set({ ...view, isDoubtShown: false, strokePlane: null });
    this.viewer.setVoxel(voxel);
    if (window) {
      this.viewer.setWindow(window.low, window.high);
    }
    if (isDoubt && !this.isPlain) {
      await this.viewer.setDoubt(await this.open.doubt());
    }
    this.#listen();
    this.#noticeOfState();
    this.update();
  }

  #framed() {
    if (this.isClosed) {
      return;
    }
    document.body.dataset.ready = this.viewer.nifti ? `case ${this.open.id}` : "";
    this.#followPointer();
    this.#drawStatus();
    this.#noteShown();
  }

  /** The log is told whether a mask and a predicted quality were on the screen; the first time at once. */
  #noteShown() {
    const { viewing, about } = this.open;
    const before = [viewing.isQualityShown, viewing.isOverlayShown];
    viewing.show({
      quality: !about.hidden && about.structures.some(({ predicted_dice }) => predicted_dice !== null && predicted_dice !== undefined),
      overlay: Boolean(this.viewer.mask) && !this.viewer.view.isMaskHidden,
    });
    if (String(before) !== String([viewing.isQualityShown, viewing.isOverlayShown])) {
      this.open.beat();
    }
  }

  update() {
    const { open, viewer } = this;
    if (!viewer?.nifti || !open.editor) {
      return;
    }
    const { about, editor } = open;
    const { session } = this.app;
    const hidden = new Set(about.structures.map(({ index }) => index).filter((index) => this.labelsOf(index).every((label) => viewer.view.hidden.has(label))));
    const labels = (session.labels ?? session.structures.map(({ index, label }) => ({ index, name: label, group: 0 }))).filter((label) => (label.group ?? 0) === open.group);
    keepingFocus(this.element, () => {
      this.structures.update({ structures: about.structures, selected: this.selected, hidden, isEditable: open.isEditable, state: about.state });
      this.findings.update({ about, region: this.region, selected: this.selected, isEditable: open.isEditable });
      this.viewBar.update({ view: viewer.view, windows: this.windows, windowAt: this.windowAt, about, channel: this.open.channel, isPlain: this.isPlain });
      this.drawBar.update({
        tool: this.tool,
        clicks: this.clicks,
        isBall: this.isBall,
        radius_mm: this.radius_mm,
        unit: about.is_picture ? "pixels" : "mm",
        rules: editor.rules,
        isEditable: open.isEditable,
        canUndo: editor.history.canUndo,
        canRedo: editor.history.canRedo,
        isDirty: open.isDirty,
        labels,
        groups: session.groups ?? 1,
        group: open.group,
        isPicture: viewer.isFlat,
      });
    });
    this.host.classList.toggle("drawing", this.tool !== "look");
    this.host.classList.toggle("waiting", this.clicks.isBusy);
    this.host.setAttribute("aria-busy", String(this.clicks.isBusy));
    this.title.replaceChildren(
      el("h1", { title: about.case }, about.case),
      el("span", { className: `state ${about.state}` }, known("state", about.changed?.length ? "CHANGED" : about.state)),
      el("span", { className: "soft" }, open.base === 0 ? t("case.draft") : t("case.version", { version: open.base })),
    );
    this.#drawStatus();
    this.#noteShown();
  }

  /** The name of the structure at a voxel; "" where there is none, or one of another group. */
  nameAt(voxel) {
    const { image, about, editor } = this.open;
    const index = voxel[0] + image.dims[0] * (voxel[1] + image.dims[1] * voxel[2]);
    return about.structures.find((each) => each.index === editor.values[index])?.label ?? "";
  }

  #drawStatus() {
    const { viewer, open } = this;
    const { image, about } = open;
    const voxel = this.hovered?.voxel ?? viewer.voxel;
    const index = voxel[0] + image.dims[0] * (voxel[1] + image.dims[1] * voxel[2]);
    const intensity = image.isColour ? [0, 1, 2].map((part) => image.values[3 * index + part]).join(" ") : number(image.values[index] * image.slope + image.intercept, Number.isInteger(image.values[index]) && image.slope === 1 ? 0 : 2);
    const label = this.nameAt(voxel);
    const side = about.has_letters ? t(`side.${patientSide(voxel[0], image.dims[0])}`) : "";
    const saved = open.isDirty ? t("status.unsaved") : open.isAutosaved ? t("status.autosaved", { version: open.base }) : open.base > 0 ? t("status.saved", { version: open.base }) : "";
    const parts = [
      viewer.isFlat ? t("status.pixel", { x: voxel[0] + 1, y: image.dims[1] - voxel[1] }) : t("status.voxel", { x: voxel[0] + 1, y: voxel[1] + 1, z: voxel[2] + 1 }),
      about.is_ct ? t("status.hu", { value: intensity }) : t("status.value", { value: intensity }),
      label,
      side,
      this.clicks.isBusy ? t("refine.working", { n: this.clicks.waiting }) : "",
      saved,
    ];
    this.status.replaceChildren(...parts.filter(Boolean).map((part, at) => el("span", { className: at === parts.length - 1 ? "saved" : "" }, part)));
  }

  async close() {
    this.isClosed = true;
    this.listening?.abort();
    await this.open.close();
    this.viewer?.forget();
  }
}

function after(list, value) {
  return list[(list.indexOf(value) + 1) % list.length];
}

/** Boxes come as three pairs or as six numbers: first voxels, then those behind the last. */
function boxOf(box) {
  if (!box) {
    return null;
  }
  return Array.isArray(box[0]) ? box : [0, 1, 2].map((axis) => [box[axis], box[axis + 3]]);
}

/** Windows are in the image's own unit; percentiles are of stored values. */
function scaled(window, image, isCt) {
  return isCt ? window : { ...window, low: window.low * image.slope + image.intercept, high: window.high * image.slope + image.intercept };
}

/** A brush of about a thirtieth of the picture, in whole halves of a millimetre. */
function startRadius({ dims, spacing_mm }) {
  const size_mm = Math.min(dims[0] * spacing_mm[0], dims[1] * spacing_mm[1]);
  return Math.max(0.5, Math.round((size_mm / 30) * 2) / 2);
}

function field(words, input) {
  return el("label", { className: "field", for: input.id }, el("span", {}, words), input);
}
