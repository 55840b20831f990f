// One case while it is open: what was loaded, what was changed, what is saved, and the time that it took. No page here.

import * as api from "./api.js";
import { WorkClock } from "./clock.js";
import { MaskEditor, REFINED } from "./mask_editor.js";
import { readNifti } from "./nifti_file.js";
import { ViewingRecord } from "./viewing_record.js";

const HEARTBEAT_S = 15;
const AUTOSAVE_S = 30;

export class OpenCase {
  /**
   * @param {object} session as the server told it
   * @param {function} changed is called with "case", "saved", "conflict", "offline" or "held"
   */
  constructor(session, changed) {
    this.session = session;
    this.changed = changed;
    this.clock = new WorkClock(now_s());
    this.viewing = new ViewingRecord();
    this.isDirty = false;
    this.isEditable = false;
    this.isAutosaved = false;
    this.group = 0;
    this.channel = 0;
    this.timers = [];
    this.work_s = 0;
  }

  /** Asks the server for a case and what belongs to it. ``isWhole`` asks for all of it where a box would be sent. */
  async load(id, isWhole = false) {
    this.id = id;
    this.isWhole = isWhole;
    this.about = await api.getCase(id, this.#grid());
    await this.#hold();
    this.base = this.about.version;
    const [image, label] = await Promise.all([this.#image(), this.#label(this.base)]);
    if (this.isClosed) {
      // Somebody went on before it was there.
      await this.#letGo();
      return;
    }
    this.imageBuffer = image ?? label.buffer;
    this.image = image === null ? blankLike(label) : readNifti(image);
    if (String(label.dims) !== String(this.image.dims)) {
      throw new Error(`the mask has ${label.dims.join(" x ")} voxels, the image ${this.image.dims.join(" x ")}`);
    }
    this.#edit(label.values);
    this.#keepTime();
  }

  #edit(values) {
    const intensities = this.image.isColour ? null : this.image.values;
    const rules = this.editor?.rules;
    this.editor = new MaskEditor(values, this.image.dims, this.image.spacing_mm, intensities);
    if (rules) {
      this.editor.rules = rules;
    }
    this.savedRevision = this.editor.revision;
    this.isDirty = false;
  }

  #grid() {
    return this.isWhole ? { whole: 1 } : {};
  }

  #groupField(group = this.group) {
    return (this.session.groups ?? 1) > 1 ? { group } : {};
  }

  /** Another channel of the image, such as another sequence of an MR. */
  async setChannel(channel) {
    this.channel = channel;
    this.imageBuffer = await this.#image();
    this.image = readNifti(this.imageBuffer);
    this.editor.intensities = this.image.isColour ? null : this.image.values;
  }

  async #image() {
    if (this.about.has_image === false) {
      return null;
    }
    const channel = this.channel > 0 ? { channel: this.channel } : {};
    const bytes = await api.getBytes(this.id, "image.nii.gz", { ...this.#grid(), ...channel });
    return exactBuffer(bytes);
  }

  async #label(version, group = this.group) {
    const bytes = await api.getBytes(this.id, `label/${version}.nii.gz`, { ...this.#grid(), ...this.#groupField(group) });
    const buffer = exactBuffer(bytes);
    return { ...readNifti(buffer), buffer };
  }

  /** Another reading of the mask: "draft", "fold_0", "version_2". */
  async other(kind) {
    const bytes = await api.getBytes(this.id, `compare/${kind}`, { ...this.#grid(), ...this.#groupField() });
    return readNifti(exactBuffer(bytes)).values;
  }

  async doubt() {
    return exactBuffer(await api.getBytes(this.id, "doubt.nii.gz", this.#grid()));
  }

  async draft() {
    return (await this.#label(0)).values;
  }

  /** Places at which the folds disagree about a structure, the most doubtful first. */
  async clickPlaces(structure) {
    const answer = await api.getClickPlaces(this.id, { structure, base: this.base, ...this.#grid() });
    return answer.places;
  }

  /** Takes the case for this person, or learns that another one has it. */
  async #hold() {
    this.heldBy = null;
    // A case that is reviewed would fall back to a draft if it were opened again: that is asked for, never done by looking.
    const isOver = ["REVIEWED", "SIGNED", "REJECTED"].includes(this.about.state);
    if (this.session.read_only || isOver) {
      this.isEditable = false;
      return;
    }
    await this.take();
  }

  /** Takes the case for this person; false if another one has it. */
  async take() {
    try {
      const standing = await api.openCase(this.id);
      Object.assign(this.about, { state: standing.state ?? this.about.state, holder: standing.holder ?? this.about.holder });
      this.isEditable = true;
    } catch (error) {
      if (!(error instanceof api.ServerError)) {
        throw error;
      }
      this.isEditable = false;
      this.heldBy = error.body.holder ?? this.about.holder ?? null;
      this.whyNot = error.message;
    }
    return this.isEditable;
  }

  /** Takes a step. Another tab of the same person gives the case back when it is closed: then it is taken once more. */
  async #step(send) {
    try {
      return await send();
    } catch (error) {
      const isNobodys = error.status === 409 && error.body.holder === null;
      if (!isNobodys || !(await this.#takeAgain())) {
        throw error;
      }
    }
    return send();
  }

  /** Takes a draft that nobody has any more. What was finished meanwhile would become a draft by that: it is left. */
  async #takeAgain() {
    const { state, holder } = await api.getCase(this.id, this.#grid());
    return state === "DRAFT" && !holder && (await this.take());
  }

  async refresh() {
    const before = this.about;
    this.about = await api.getCase(this.id, this.#grid());
    this.changed("case", before);
  }

  #keepTime() {
    this.timers.forEach(clearInterval);
    const beat_s = this.session.heartbeat_s ?? HEARTBEAT_S;
    const save_s = this.session.autosave_s ?? AUTOSAVE_S;
    this.timers = [setInterval(() => this.beat(), beat_s * 1000), setInterval(() => this.autosave(), save_s * 1000)];
  }

  /** Tells the server of time and of slices seen, and keeps the case held. */
  async beat() {
    const { active_s, idle_s } = this.clock.take(now_s());
    this.work_s += active_s;
    if (!this.isEditable) {
      return;
    }
    const slices_viewed = this.viewing.take();
    const shown = { quality_shown: this.viewing.isQualityShown, overlay_shown: this.viewing.isOverlayShown };
    try {
      await this.#step(() => api.heartbeat({ case: this.id, active_s, idle_s, slices_viewed, ...shown, whole: this.isWhole, box: boxField(this.about.box) ?? "" }));
    } catch (error) {
      this.viewing.giveBack(slices_viewed);
      this.#failed(error);
    }
  }

  #failed(error) {
    if (error instanceof api.NoServer || error instanceof api.NotLetIn) {
      this.changed("offline", error);
    } else if (error.status === 409 && error.body.holder) {
      this.isEditable = false;
      this.heldBy = error.body.holder;
      this.changed("held");
    } else {
      this.changed("error", error);
    }
  }

  /** Seconds of work on this case so far. */
  workSoFar() {
    return this.work_s + this.clock.peek(now_s());
  }

  input() {
    this.clock.input(now_s());
  }

  setVisible(isVisible) {
    this.clock.show(isVisible, now_s());
  }

  /** After every change of voxels. */
  edited() {
    this.isDirty = this.editor.revision !== this.savedRevision;
    this.changed("edited");
  }

  async autosave() {
    if (this.isDirty && this.isEditable && !this.isSaving && !this.conflict && this.editor.change === null) {
      await this.save({ isAutosave: true });
    }
  }

  /** What says to the server of what a bitmap is. */
  bitmapFields() {
    return {
      case: this.id,
      base: this.base,
      whole: this.about.box?.is_whole === false ? 0 : 1,
      box: boxField(this.about.box),
      ...this.#groupField(),
    };
  }

  /**
   * Sends the mask as a new version. True if it is saved; a conflict is kept in ``conflict`` and told.
   * @param {{isAutosave?: boolean, base?: number}} how
   */
  async save({ isAutosave = false, base = this.base } = {}) {
    const revision = this.editor.revision;
    const clicks = this.editor.history.standing.filter(({ name, isSaved }) => name === REFINED && !isSaved);
    const fields = {
      ...this.bitmapFields(),
      base,
      origin: this.usedCandidate && !this.usedBrush ? "candidate" : "edited",
      autosave: isAutosave ? 1 : 0,
      clicks: clicks.length,
    };
    this.isSaving = true;
    try {
      const saved = await this.#step(() => api.saveMask(fields, this.editor.values));
      this.base = saved.version;
      this.about.version = saved.version;
      this.about.sha256 = saved.sha256;
      this.savedRevision = revision;
      clicks.forEach((change) => (change.isSaved = true));
      this.isDirty = this.editor.revision !== revision;
      this.isAutosaved = isAutosave;
      this.conflict = null;
      this.changed("saved");
      return true;
    } catch (error) {
      if (error.status === 409 && error.body.newest !== undefined) {
        this.conflict = { newest: error.body.newest, author: error.body.author };
        this.changed("conflict");
      } else {
        this.#failed(error);
      }
      return false;
    } finally {
      this.isSaving = false;
    }
  }

  /** Gives up what was drawn here and takes the newest version. */
  async takeTheirs() {
    const { newest } = this.conflict;
    const label = await this.#label(newest);
    this.conflict = null;
    this.base = newest;
    this.#edit(label.values);
    await this.refresh();
  }

  /** Saves what was drawn here after the newest version, which stays as it is. */
  async keepMine() {
    const { newest } = this.conflict;
    this.conflict = null;
    const isSaved = await this.save({ base: newest });
    if (isSaved) {
      await this.refresh();
    }
    return isSaved;
  }

  async decide(structure, decision, isAskedAgain = false) {
    await this.beat();
    return this.#step(() => api.decide({ case: this.id, structure, region: null, decision, asked_again: isAskedAgain }));
  }

  /** Every structure is decided: the version that is shown is handed on to be signed. */
  async finish() {
    if (this.isDirty && !(await this.save())) {
      return false;
    }
    await this.beat();
    const finished = await api.finishCase(this.id);
    this.base = finished.version ?? this.base;
    this.isEditable = false;
    await this.refresh();
    return true;
  }

  async setGroup(group) {
    if (this.isDirty && !(await this.save())) {
      return false;
    }
    const label = await this.#label(this.base, group);
    this.group = group; // with its mask, and not before: what is saved meanwhile is of the old one
    this.#edit(label.values);
    return true;
  }

  /** Ends the time; what was changed is saved as an unsigned version, and the case is free for others. */
  async close() {
    this.isClosed = true;
    this.timers.forEach(clearInterval);
    this.timers = [];
    if (this.isEditable && this.editor) {
      if (this.isDirty && !this.conflict) {
        await this.save({ isAutosave: true });
      }
      await this.beat();
      await this.#letGo();
    }
  }

  async #letGo() {
    if (this.isEditable && this.about.state === "IN_REVIEW") {
      await api.releaseCase(this.id).catch(() => {});
    }
  }
}

export function now_s() {
  return performance.now() / 1000;
}

/** The server's box as it wants it back, first voxels and those behind the last; nothing where all was served. */
function boxField(box) {
  return box && box.is_whole === false && box.stop_xyz ? [...box.start_xyz, ...box.stop_xyz].join(",") : null;
}

function exactBuffer(bytes) {
  const isExact = bytes.byteOffset === 0 && bytes.byteLength === bytes.buffer.byteLength;
  return isExact ? bytes.buffer : bytes.slice().buffer;
}

/** Where the image is not found any more the mask is shown on nothing. */
function blankLike(label) {
  return { ...label, values: new Uint8Array(label.values.length), slope: 1, intercept: 0, isColour: false };
}
