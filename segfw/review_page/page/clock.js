// Time that counts as work: the tab is visible and the last input was at most a minute ago.

export const MOST_IDLE_S = 60;

export class WorkClock {
  /** Times are in seconds of any clock that never goes back. */
  constructor(now_s) {
    this.last_s = now_s;
    this.input_s = now_s;
    this.isVisible = true;
    this.active_s = 0;
    this.idle_s = 0;
  }

  /** Something was pressed, moved or turned. */
  input(now_s) {
    this.#pass(now_s);
    this.input_s = now_s;
  }

  /** The tab was shown or hidden. */
  show(isVisible, now_s) {
    this.#pass(now_s);
    this.isVisible = isVisible;
  }

  /** Seconds of work and of idleness since this was last asked. */
  take(now_s) {
    this.#pass(now_s);
    const taken = { active_s: this.active_s, idle_s: this.idle_s };
    this.active_s = 0;
    this.idle_s = 0;
    return taken;
  }

  /** Seconds of work that were not taken yet. */
  peek(now_s) {
    this.#pass(now_s);
    return this.active_s;
  }

  #pass(now_s) {
    const passed_s = Math.max(0, now_s - this.last_s);
    const untilIdle_s = Math.max(0, this.input_s + MOST_IDLE_S - this.last_s);
    const worked_s = this.isVisible ? Math.min(passed_s, untilIdle_s) : 0;
    this.active_s += worked_s;
    this.idle_s += passed_s - worked_s;
    this.last_s = Math.max(this.last_s, now_s);
  }
}
