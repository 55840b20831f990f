// The click tool: a click says that a place belongs to the structure, or that it does not. The server's refiner answers
// what it would change, and that goes into the mask as one change that is undone at once. Clicks wait for each other.

import * as api from "./api.js";
import { ask, el, say } from "./dom.js";
import { gunzipIfNeeded } from "./gzip.js";
import { REFINED, labelsAround } from "./mask_editor.js";
import { number, t } from "./text.js";

export class ClickTool {
  /** @param {object} screen of the case: what is open, what is shown, and what is told */
  constructor(screen) {
    this.screen = screen;
    this.isOutside = false;
    this.waiting = 0;
    this.turn = Promise.resolve();
    this.proposals = new Map();
    this.answered = { editor: null, clicks: [] };
  }

  get isThere() {
    return Boolean(this.screen.app.session.refiner);
  }

  get isBusy() {
    return this.waiting > 0;
  }

  /** Sends a click when those before it are answered. Resolves when its answer is in the mask. */
  click(voxel, isInside) {
    const { screen } = this;
    const structure = screen.structure();
    if (structure === null || !screen.open.isEditable) {
      say(structure === null ? t("quality.none") : screen.whyNot(), "warn");
      return Promise.resolve();
    }
    const { editor } = screen.open;
    const asked = { editor, structure, voxel: [...voxel], isInside, mayOverwrite: !editor.rules.isLocked };
    this.waiting += 1;
    this.#shows({ voxel: asked.voxel, isInside, box: null });
    this.turn = this.turn.then(() => this.#work(asked));
    return this.turn;
  }

  async #work(asked) {
    try {
      if (this.#isStill(asked)) {
        await this.#send(asked);
      }
    } catch (error) {
      if (this.#isStill(asked)) {
        this.#shows(null);
        this.#failed(error);
      }
    } finally {
      this.waiting -= 1;
      if (!this.screen.isClosed) {
        this.screen.update();
      }
    }
  }

  /** Whether the mask that was clicked on is still the one that is open. */
  #isStill({ editor }) {
    return !this.screen.isClosed && this.screen.open.editor === editor;
  }

  #failed(error) {
    if (error instanceof api.TooSlow) {
      say(t("refine.slow", { seconds: number(api.REFINE_MS / 1000) }), "error");
    } else {
      this.screen.failed(error);
    }
  }

  async #send(asked) {
    const { open } = this.screen;
    const [x, y, z] = asked.voxel;
    const answer = await api.refine(
      {
        ...open.bitmapFields(),
        structure: asked.structure.label,
        at: `${x},${y},${z}`,
        inside: asked.isInside ? 1 : 0,
        overwrite: asked.mayOverwrite ? 1 : 0,
        after: this.#standing(asked.editor).at(-1)?.number ?? 0,
      },
      asked.editor.values,
    );
    if (!this.#isStill(asked)) {
      return;
    }
    if (answer.asked) {
      await this.#question(asked);
      return;
    }
    const values = answer.box_xyz === null ? null : await gunzipIfNeeded(bytesOf(answer.values));
    if (this.#isStill(asked)) {
      this.#take(asked, answer, values);
    }
  }

  /** The click lies in another structure, which is protected: the reader says whether it may lose voxels. */
  async #question(asked) {
    const { screen } = this;
    const name = screen.nameAt(asked.voxel);
    const choice = await ask(
      t("refine.asks_title"),
      el("p", {}, t("refine.asks", { other: name || t("refine.another"), name: asked.structure.label })),
      [
        ["no", t("refine.keep"), "primary"],
        ["overwrite", t("refine.overwrite"), ""],
      ],
    );
    if (choice === "overwrite") {
      await this.#send({ ...asked, mayOverwrite: true });
    } else {
      this.#shows(null);
    }
  }

  /** Clicks on this mask up to the first that was undone: the refiner forgets those after the last of them. */
  #standing(editor) {
    const { clicks } = this.answered.editor === editor ? this.answered : { clicks: [] };
    const { standing } = editor.history;
    const undone = clicks.findIndex(({ change }) => change !== null && !standing.includes(change));
    return undone < 0 ? clicks : clicks.slice(0, undone);
  }

  #take(asked, answer, values) {
    const { screen } = this;
    let change = null;
    if (values !== null) {
      const { editor } = asked;
      const box = [0, 1, 2].map((axis) => [answer.box_xyz[axis], answer.box_xyz[axis + 3]]);
      editor.begin(REFINED, asked.structure.index);
      const own = labelsAround(screen.app.session.structures, asked.structure.index, screen.open.group);
      editor.takeValues(box, values, own, asked.mayOverwrite);
      change = editor.end();
    }
    this.answered = { editor: asked.editor, clicks: [...this.#standing(asked.editor), { number: answer.click, change }] };
    if (change === null) {
      this.#shows(null);
      say(t("refine.nothing"));
      return;
    }
    if (screen.viewer.view.box === this.proposed) {
      screen.viewer.view.box = null; // somebody has clicked there, or elsewhere
    }
    screen.changed("refine");
    this.#shows({ voxel: asked.voxel, isInside: asked.isInside, box: change.box, change });
    const words = { name: asked.structure.label, added: number(change.added), removed: number(change.removed), seconds: number(answer.seconds, 1) };
    say(t("refine.done", words));
    if (answer.is_cut) {
      say(t("refine.cut"), "warn");
    }
  }

  /** The place of the last click and the box that it changed; null takes them off the picture. */
  #shows(clicked) {
    this.clicked = clicked;
    if (this.screen.viewer) {
      this.screen.viewer.view.clicked = clicked;
      this.screen.viewer.invalidateOverlay();
    }
    this.screen.update();
  }

  /** Another change was made, or this one was taken back: what is shown of it goes. */
  forget() {
    if (!this.isBusy && this.clicked) {
      this.#shows(null);
    }
  }

  accept() {
    if (this.clicked?.box) {
      this.#shows(null);
      say(t("refine.accepted"));
    } else {
      say(t("refine.no_change"));
    }
  }

  /** Goes to the next place at which the folds disagree about the structure; nothing is changed there. */
  async goToNext() {
    const { screen } = this;
    const { open } = screen;
    const structure = screen.structure();
    if (structure === null || open.about.hidden) {
      say(open.about.hidden ? t("blind.hidden") : t("refine.no_places"));
      return;
    }
    const { label } = structure;
    if (!this.proposals.has(label)) {
      this.proposals.set(label, { places: await open.clickPlaces(label), next: 0 });
    }
    const known = this.proposals.get(label);
    if (screen.isClosed || screen.structure()?.label !== label) {
      return;
    }
    if (known.places.length === 0) {
      say(t("refine.no_places"));
      return;
    }
    if (known.next >= known.places.length) {
      known.next = 0;
      say(t("refine.from_first"));
    }
    const place = known.places[known.next];
    known.next += 1;
    const box = [0, 1, 2].map((axis) => [place.box_xyz[axis], place.box_xyz[axis + 3]]);
    this.proposed = box;
    screen.viewer.set({ box });
    screen.viewer.setVoxel(place.at_xyz);
    say(t(`refine.maybe_${place.inside ? "inside" : "outside"}`, { name: label, n: known.next, count: known.places.length }));
    screen.update();
  }
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}
