// Whether it is time to stop, in the language of the page, of the numbers that the queue was made with.

import { number, t } from "./text.js";

/**
 * @param {{kind: string, number: number|null, limit: number|null, audit: object[]}[]} facts
 * @param {boolean} isOver whether one of them says stop
 */
export function stopWords(facts, isOver) {
  const reasons = facts.map(reason).join(t("stop.between"));
  return isOver ? t("stop.over", { reasons }) : t("stop.go_on", { reasons });
}

function reason({ kind, number: value, limit, audit }) {
  if (kind === "audit") {
    return auditWords(audit, value, limit);
  }
  const digits = kind === "worth" ? 4 : 0;
  return t(`stop.reason_${kind}`, { number: number(value ?? 0, digits), limit: limit === null ? "" : String(limit) });
}

function auditWords(results, left, target) {
  const texts = results.map(resultWords).join(t("stop.between_results"));
  if (left === null) {
    return t("stop.audit_wanted", { texts, target: shortPercent(target) });
  }
  return left > 0 ? t("stop.audit_left", { texts, count: number(left) }) : t("stop.audit_done", { texts });
}

function resultWords({ of, rest, sampled, read, failed, alpha, bound }) {
  const what = of ? t("stop.of", { name: of }) : "";
  if (rest === 0) {
    return t("stop.result_none", { what });
  }
  if (bound === null) {
    return t("stop.result_unread", { what, read: number(read), sampled: number(sampled) });
  }
  const sure = String(Math.round(1000 * (1 - alpha)) / 10);
  return t("stop.result_bound", { what, bound: number(100 * bound, 1), rest: number(rest), failed: number(failed), sampled: number(sampled), sure });
}

function shortPercent(share) {
  return String(Math.round(1000 * share) / 10);
}
