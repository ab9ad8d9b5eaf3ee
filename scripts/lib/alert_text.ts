/** Alerts in the words of their readers: English or Chinese, one message for all that is new. */
import type { Alert, News, NewsEvent } from './alerts.ts';
import type { Part, Severity } from './checks/check.ts';
import { CHECKS } from './checks/index.ts';
import { KINDS } from './checks/kinds.ts';
import type { Language } from './config.ts';

/** Beyond this a message is unreadable, and some receivers cut it off. */
const MOST_LINES = 20;

const SEVERITY_WORDS: Record<Severity, Record<Language, string>> = {
  hint: { en: 'hint', zh: '提示' },
  low: { en: 'low', zh: '低' },
  medium: { en: 'medium', zh: '中' },
  high: { en: 'high', zh: '高' },
  critical: { en: 'critical', zh: '严重' },
};
const EVENT_WORDS: Record<NewsEvent, Record<Language, string>> = {
  raised: { en: 'raised', zh: '新告警' },
  muted: { en: 'muted', zh: '已静默' },
  escalated: { en: 'escalated', zh: '级别上升' },
  reminder: { en: 'still standing', zh: '仍未恢复' },
  flapping: { en: 'comes and goes, muted until it rests', zh: '反复抖动，稳定前不再通知' },
  recovered: { en: 'recovered', zh: '已恢复' },
};

export interface Message {
  title: string;
  text: string;
  /** Of what is told; `hint` where only good news is. */
  severity: Severity;
  /** The same for programs. */
  news: object[];
}

export interface Told {
  /** What is told, the worst first. */
  news: readonly News[];
  /** Findings that follow from a part that is down, by that part. */
  muted: ReadonlyMap<Part, number>;
  language: Language;
  /** Where this comes from, such as the host's name. */
  place: string;
  /** IANA name of the readers' time zone. */
  timeZone: string;
  /** ms since the epoch. */
  now: number;
}

export function messageOf(told: Told): Message {
  const { news, muted, language, place } = told;
  const events = [...new Set(news.map(({ event }) => event))];
  const counts = events.map(
    (event) => `${EVENT_WORDS[event][language]} ${news.filter((each) => each.event === event).length}`,
  );
  const bad = news.find(({ event }) => event !== 'recovered');
  const severity = bad?.alert.severity ?? 'hint';
  const worst = bad === undefined ? '' : ` [${SEVERITY_WORDS[severity][language]}]`;
  const lines = news.slice(0, MOST_LINES).map((each) => lineOf(each, told));
  const more = news.length - MOST_LINES;
  if (more > 0)
    lines.push(
      language === 'zh'
        ? `……另有 ${more} 条，见 data/alerts/alerts.jsonl`
        : `… and ${more} more: data/alerts/alerts.jsonl`,
    );
  for (const [part, count] of muted) {
    lines.push(
      language === 'zh'
        ? `${part} 无应答，由此引起的 ${count} 条已静默`
        : `${count} more follow from ${part} being down, and are muted`,
    );
  }
  return {
    title: `MarketPrism ${place}${worst}: ${counts.join(', ')}`,
    text: lines.join('\n'),
    severity,
    news: news.map(({ event, alert }) => ({ event, ...shownAlert(alert, told.timeZone) })),
  };
}

function lineOf({ event, alert }: News, { language, timeZone, now }: Told): string {
  const { check, kind, severity, subject, what, times, since, fix } = alert;
  const head = `[${SEVERITY_WORDS[severity][language]}] ${EVENT_WORDS[event][language]} · ${checkWord(check, language)} · ${KINDS[kind][language]} · ${subject}`;
  const isZh = language === 'zh';
  if (event === 'recovered') {
    const lasted = Math.round(((alert.over_at ?? now) - since) / 60_000);
    return `${head}${isZh ? `（持续 ${lasted} 分钟）` : ` (after ${lasted} min)`}`;
  }
  const count =
    times === 1
      ? ''
      : isZh
        ? `；自 ${localTime(since, timeZone)} 起 ${times} 次`
        : `; ${times} times since ${localTime(since, timeZone)}`;
  const advice = event === 'raised' ? `\n    ${isZh ? '处理' : 'fix'}: ${fix}` : '';
  return `${head}: ${what}${count}${advice}`;
}

function checkWord(name: string, language: Language): string {
  return language === 'zh' ? (CHECKS.find((check) => check.name === name)?.zh ?? name) : name;
}

/** `2026-11-24 20:15:00`. @param time ms since the epoch @param timeZone IANA name */
export function localTime(time: number, timeZone: string): string {
  return new Intl.DateTimeFormat('sv-SE', { timeZone, dateStyle: 'short', timeStyle: 'medium' }).format(time);
}

export type ShownAlert = ReturnType<typeof shownAlert>;

/** An alert as the API, webhooks and `alerts.jsonl` show it: times in UTC, and as its readers' clocks say. @param timeZone IANA name */
export function shownAlert(alert: Alert, timeZone: string) {
  const { fingerprint, check, kind, subject, severity, what, state, since, last_seen, over_at, times } = alert;
  const { acknowledged } = alert;
  return {
    fingerprint,
    alert_type: kind,
    check,
    subject,
    severity,
    message: `${KINDS[kind].en}: ${subject}: ${what}`,
    details: { what, evidence: alert.evidence, fix: alert.fix, found_by: alert.depth },
    state,
    occurrences: times,
    muted_by: alert.muted_by,
    is_flapping: alert.is_flapping,
    created_at: new Date(since).toISOString(),
    created_at_local: localTime(since, timeZone),
    last_seen: new Date(last_seen).toISOString(),
    over_at: over_at === null ? null : new Date(over_at).toISOString(),
    acknowledged: acknowledged === null ? null : { ...acknowledged, at: new Date(acknowledged.at).toISOString() },
  };
}
