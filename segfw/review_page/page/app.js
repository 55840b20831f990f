// The page begins here: session, language, colours, and which screen is shown.

import * as api from "./api.js";
import { CaseScreen } from "./case_screen.js";
import { CompareScreen } from "./compare_screen.js";
import { actionButton, el, say } from "./dom.js";
import { showHelp } from "./help_dialog.js";
import { actionOf } from "./keymap.js";
import { PlainViewer } from "./plain_viewer.js";
import { QueueScreen } from "./queue_screen.js";
import { SignScreen } from "./sign_screen.js";
import { SummaryScreen } from "./summary_screen.js";
import { Viewer } from "./viewer.js";
import { LANGUAGES, language, loadLanguage, t } from "./text.js";

const SCREENS = { queue: QueueScreen, case: CaseScreen, compare: CompareScreen, sign: SignScreen, summary: SummaryScreen };
const PREFERENCES = "segfw-review";
const DEFAULTS = { maskMode: "contour", layout: "big", isRadiological: true, opacity: 0.4, theme: "auto", language: null };
const THEMES = ["auto", "dark", "light"];
const INPUTS = ["pointerdown", "pointermove", "keydown", "wheel"];

class App {
  constructor() {
    this.preferences = { ...DEFAULTS, ...stored() };
    this.queue = [];
    this.done = [];
    this.work_s = 0;
    this.lastCase = null;
  }

  async start() {
    try {
      this.session = await api.getSession();
    } catch (error) {
      await loadLanguage(this.preferences.language ?? "en");
      document.getElementById("screen").replaceChildren(el("p", { className: "warn fatal" }, wordsOf(error)));
      return;
    }
    await loadLanguage(this.preferences.language ?? this.session.language ?? "en");
    this.#setTheme();
    this.#drawHeader();
    this.#listen();
    await this.#fromAddress();
  }

  // Which screen

  /** Shows a screen; the address follows, so that the browser's way back works. */
  go(name, id = null, how = {}) {
    this.how = how;
    const address = `#${name}${id === null ? "" : `/${encodeURIComponent(id)}`}`;
    if (window.location.hash === address) {
      return this.#show(name, id, how);
    }
    window.location.hash = address;
    return undefined;
  }

  async #fromAddress() {
    const [name, id] = window.location.hash.slice(1).split("/");
    const how = this.how ?? {};
    this.how = {};
    await this.#show(name in SCREENS ? name : "queue", id ? decodeURIComponent(id) : null, how);
  }

  async #show(name, id, how) {
    const turn = (this.turn ?? 0) + 1;
    this.turn = turn;
    delete document.body.dataset.ready;
    if (this.screen) {
      this.#countWork();
      await this.screen.close().catch((error) => say(error.message, "error"));
    }
    if (turn !== this.turn) {
      return;
    }
    const screen = new SCREENS[name](this);
    this.screen = screen;
    this.current = { name, id };
    this.lastCase = id ?? this.lastCase;
    document.getElementById("screen").replaceChildren(screen.element);
    this.#drawHeader();
    try {
      await screen.start(id, how);
    } catch (error) {
      if (turn !== this.turn) {
        return;
      }
      screen.element.prepend(el("p", { className: "warn fatal" }, wordsOf(error)));
      document.body.dataset.ready = "error";
    }
  }

  /** Opens the next or previous case of the queue. */
  async nextItem(step) {
    const cases = [...new Set(this.queue.map((item) => item.case))];
    const at = cases.indexOf(this.lastCase);
    const next = cases[at + step];
    if (next === undefined) {
      this.go("queue");
    } else {
      const item = this.queue.find((each) => each.case === next);
      this.go("case", next, { structure: item.structure, region: item.region });
    }
  }

  /** Mine, not saved yet, beside what another person saved. */
  async compareBeside(caseScreen, kind) {
    const beside = new CompareScreen(this);
    const dialog = el("dialog", { className: "wide" }, beside.element, el("div", { className: "buttons" }, el("button", { type: "button", className: "primary", onclick: () => dialog.close() }, t("dialog.close"))));
    document.body.append(dialog);
    dialog.showModal();
    await beside.start(caseScreen.open.id, { shown: ["mine", kind], mine: caseScreen.open.editor.values });
    await new Promise((resolve) => dialog.addEventListener("close", resolve));
    await beside.close();
    dialog.remove();
    document.body.dataset.ready = `case ${caseScreen.open.id}`;
    await caseScreen.save();
  }

  /** One picture for all cases: setting up the graphics card takes longer than a small case does. */
  async pictureFor(host, told, words, isPlain) {
    const Kind = isPlain ? PlainViewer : Viewer;
    if (this.picture instanceof Kind && !this.picture.isLost) {
      this.picture.told = told;
      this.picture.words = words;
      this.picture.moveTo(host);
      return this.picture;
    }
    this.picture?.close();
    this.picture = new Kind(host, told, words);
    await this.picture.start();
    return this.picture;
  }

  // What was done

  finished(what) {
    this.done.push(what);
  }

  #countWork() {
    this.work_s += this.screen?.open?.workSoFar?.() ?? 0;
  }

  counted() {
    return { work_s: this.work_s, done: this.done };
  }

  // Head of the page

  #drawHeader() {
    const { session } = this;
    const screen = (name, id) =>
      el("a", { href: `#${name}${id ? `/${encodeURIComponent(id)}` : ""}`, "aria-current": this.current?.name === name ? "page" : null }, t(`screen.${name}`));
    const id = this.current?.id ?? this.lastCase;
    const languages = el(
      "select",
      { "aria-label": t("header.language"), onchange: () => this.setLanguage(languages.value) },
      Object.entries(LANGUAGES).map(([value, name]) => el("option", { value, selected: value === language() }, name)),
    );
    document.getElementById("header").replaceChildren(
      el("strong", { className: "mark" }, "segfw"),
      el("span", { className: "folder", title: session.folder }, lastPart(session.folder)),
      el("nav", { "aria-label": t("header.screens") }, screen("queue"), ...(id ? [screen("case", id), screen("compare", id), screen("sign", id)] : []), screen("summary")),
      el("span", { className: "grow" }),
      ...(session.read_only ? [el("span", { className: "state" }, t("header.read_only"))] : []),
      ...(session.blind ? [el("span", { className: "state" }, t("header.blind"))] : []),
      el("span", { className: "user", title: t("header.declared") }, t("header.user", { user: session.user })),
      languages,
      actionButton("theme", () => this.run("theme"), { text: t(`theme.${this.preferences.theme}`) }),
      actionButton("help", () => this.run("help")),
    );
    document.title = this.current?.id ? `${this.current.id} · segfw` : t("title");
    document.getElementById("foot").textContent = t("foot");
  }

  prefer(changes) {
    Object.assign(this.preferences, changes);
    try {
      localStorage.setItem(PREFERENCES, JSON.stringify(this.preferences));
    } catch {
      // Without a place to remember them they hold until the page is closed.
    }
  }

  #setTheme() {
    const { theme } = this.preferences;
    document.documentElement.dataset.theme = theme;
  }

  async setLanguage(name) {
    this.prefer({ language: name });
    await loadLanguage(name);
    this.#drawHeader();
    await this.#show(this.current.name, this.current.id, {});
  }

  // Keys

  #listen() {
    window.addEventListener("hashchange", () => this.#fromAddress());
    document.addEventListener("keydown", (event) => this.#key(event, true));
    document.addEventListener("keyup", (event) => this.#key(event, false));
    document.addEventListener("visibilitychange", () => this.screen?.open?.setVisible?.(!document.hidden));
    for (const name of INPUTS) {
      document.addEventListener(name, () => this.screen?.open?.input?.(), { passive: true, capture: true });
    }
    // A button that was pressed with the mouse must not take the space bar for itself afterwards.
    document.addEventListener("click", (event) => {
      if (event.detail > 0 && event.target.closest?.("button") && !document.querySelector("dialog[open]")) {
        document.querySelector(".viewer")?.focus({ preventScroll: true });
      }
    });
    window.addEventListener("beforeunload", (event) => {
      if (this.screen?.open?.isDirty) {
        event.preventDefault();
      }
    });
    window.addEventListener("pagehide", () => {
      const open = this.screen?.open;
      if (open?.isEditable && !open.isDirty) {
        api.releaseOnClose(open.id);
      }
    });
  }

  #key(event, isDown) {
    const held = event.target;
    const isTyping = held.matches?.("input:not([type=checkbox]):not([type=range]), textarea, select");
    const isPress = (event.key === " " || event.key === "Enter") && held.matches?.("button, a, summary, input");
    const isDialog = document.querySelector("dialog[open]") !== null;
    const action = actionOf(event, this.screen?.name);
    const isStuck = !isDown && ["h", "a"].includes(event.key.toLowerCase()) && this.screen?.name === "case";
    if (isDialog || isTyping || isPress || action === null) {
      if (isStuck) {
        this.screen.run(event.key.toLowerCase() === "h" ? "hide" : "alone", { isDown: false, isKey: true });
      }
      return;
    }
    if (event.repeat && action.isHold) {
      event.preventDefault();
      return;
    }
    if (isDown) {
      event.preventDefault();
    }
    if (isDown || action.isHold) {
      this.run(action.id, { isDown, isKey: true });
    }
  }

  run(id, how = {}) {
    const own = {
      go_queue: () => this.go("queue"),
      go_compare: () => this.lastCase && this.go(this.current.name === "compare" ? "case" : "compare", this.lastCase),
      go_summary: () => this.go("summary"),
      theme: () => this.#nextTheme(),
      language: () => this.setLanguage(language() === "en" ? "zh" : "en"),
      help: () => showHelp(),
    };
    const isStep = id === "item_next" || id === "item_previous";
    if (id in own) {
      own[id]();
    } else if (isStep && this.current.name !== "queue") {
      this.nextItem(id === "item_next" ? 1 : -1);
    } else {
      this.screen?.run(id, how);
    }
  }

  #nextTheme() {
    const theme = THEMES[(THEMES.indexOf(this.preferences.theme) + 1) % THEMES.length];
    this.prefer({ theme });
    this.#setTheme();
    this.#drawHeader();
  }
}

/** Why something did not come, in the page's language as far as the page knows the reason. */
function wordsOf(error) {
  if (error instanceof api.NoServer) {
    return t("offline", { port: window.location.port });
  }
  return error instanceof api.NotLetIn ? t("not_let_in") : error.message;
}

function stored() {
  try {
    return JSON.parse(localStorage.getItem(PREFERENCES)) ?? {};
  } catch {
    return {};
  }
}

function lastPart(path) {
  return String(path ?? "").split(/[\\/]/).filter(Boolean).pop() ?? "";
}

const app = new App();
window.segfwReview = app;
app.start();
