/**
 * Rounds of checks, one at a time, whoever asks for them; what they find becomes alerts, and people are told. One history for the schedule and for
 * the API: this process writes it, and nobody else.
 */
import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { messageOf, shownAlert } from './alert_text.ts';
import { type ACKNOWLEDGE, ALERT, type Alert, Alerts, type Judged, type News } from './alerts.ts';
import { type Check, type Part, SEVERITIES } from './checks/check.ts';
import { type Coverage, completenessOf } from './checks/coverage.ts';
import { CHECKS } from './checks/index.ts';
import { type Limits, readLimits, writeLimits } from './checks/limits.ts';
import { askAll, DEPTHS, type Depth, deeper, flat, headOf, type Round, SPANS, type Span } from './checks/round.ts';
import { OperatorError } from './cli.ts';
import type { Config } from './config.ts';
import { readJson, writeJsonAtomic } from './files.ts';
import { JsonlWriter } from './jsonl.ts';
import type { Logger } from './log.ts';
import { type Delivery, deliver, type Notifier } from './notifiers.ts';
import { type PostedEvent, ToldEvents } from './told_events.ts';
import { signOfLife } from './vital_signs.ts';

/** Rounds that the API shows. */
const MOST_ROUNDS = 500;
/** Events that reached nobody, of which it is remembered that they are in the file. */
const MOST_UNREACHED = 1000;

/** Files of rounds are kept for so many days: about 1 MB each. Dated by their names, they are not logrotate's. */
const RESULTS_DAYS = 90;
const DAY_MS = 86_400_000;

/** A round as the API shows it, and as `monitoring_YYYYMMDD.jsonl` has it. */
export interface ShownRound {
  id: string;
  type: Depth;
  asked_by: 'schedule' | 'api';
  began: string;
  ms: number;
  status: string;
  exit_code: number;
  from: string;
  to: string;
  /** Rows stored of rows expected, percent; null where nothing came. */
  completeness: number | null;
  checks: object[];
  coverage: Coverage[] | null;
  /** What it brought: alerts raised, recovered and so on. */
  news: { event: string; fingerprint: string }[];
}

const STATE = z.object({ alerts: z.array(ALERT), last: z.partialRecord(z.enum(DEPTHS), z.number()) });

/** What became of a posted event. */
export interface PostAnswer extends Delivery {
  id: string;
  /** People know of it, or never will by this way; otherwise it may be posted again. */
  told: boolean;
  /** It was posted before. */
  duplicate: boolean;
}

export interface MonitorOptions {
  config: Config;
  log: Logger;
  notifiers: readonly Notifier[];
  /** Who sends, such as the host's name. */
  place: string;
  /** Wall clock, and steady, ms. */
  wallClock(): number;
  clock(): number;
  pause(ms: number): Promise<void>;
}

export class Monitor {
  readonly rounds: ShownRound[] = [];
  readonly counts = {
    rounds: new Map<string, number>(),
    notifications: new Map<string, number>(),
    events: new Map<string, number>(),
  };
  private readonly alerts: Alerts;
  /** When the last round of each depth ended, ms. */
  readonly last: Partial<Record<Depth, number>>;
  limits: Limits;
  /** The last round that could not be run at all: why. */
  fault: string | null = null;
  /** Whom the last message reached; null: none was sent. */
  lastDelivery: Delivery | null = null;
  /** Rounds run one after the other. */
  private tail: Promise<unknown> = Promise.resolve();
  private readonly waiting = new Map<Depth, Promise<ShownRound>>();
  /** Resolves when no news are being told. */
  private settled: Promise<unknown> = Promise.resolve();
  private readonly events: JsonlWriter;
  private readonly toldEvents: ToldEvents;
  /** Events that are being told: who posts one again meanwhile waits for the same answer. */
  private readonly telling = new Map<string, Promise<PostAnswer>>();
  /** Events that reached nobody yet, and are in the file that says so. */
  private readonly unreached = new Set<string>();
  private results: JsonlWriter | null = null;
  private undelivered: JsonlWriter | null = null;
  private serial = 0;

  /** @throws OperatorError or SyntaxError when what an earlier process kept cannot be read */
  constructor(private readonly options: MonitorOptions) {
    const { config, log } = options;
    this.limits = readLimits(config.dataDir);
    const kept = STATE.safeParse(readJson(this.statePath) ?? { alerts: [], last: {} });
    if (!kept.success)
      throw new OperatorError(`${this.statePath}: ${kept.error.issues[0]!.message}: mend or remove it`);
    // Of a check that is no more, nothing would ever end them.
    const known = kept.data.alerts.filter(({ check }) => CHECKS.some(({ name }) => name === check));
    this.alerts = new Alerts(known);
    this.last = kept.data.last;
    this.toldEvents = new ToldEvents(config.dataDir);
    this.events = new JsonlWriter(join(config.dataDir, 'alerts', 'alerts.jsonl'), log);
  }

  /** Runs a round when those before it are over; one of the same depth that has not begun yet serves both who ask. */
  round(depth: Depth, askedBy: ShownRound['asked_by']): Promise<ShownRound> {
    const coming = this.waiting.get(depth);
    if (coming !== undefined) return coming;
    const result = this.tail.then(() => {
      this.waiting.delete(depth);
      return this.tried(depth, askedBy);
    });
    this.waiting.set(depth, result);
    this.tail = result.catch(() => null);
    return result;
  }

  get shownAlerts(): ReturnType<typeof shownAlert>[] {
    return this.alerts.list.map((alert) => shownAlert(alert, this.options.config.timeZone));
  }

  get standing(): Alert[] {
    return this.alerts.standing;
  }

  /** Forgets all alerts; what still stands is raised, and told, again. @returns how many there were */
  clearAlerts(): number {
    const count = this.alerts.clear();
    this.save();
    return count;
  }

  /**
   * Somebody knows of an alert, and wants to hear no more of it as it is. It is on disk when this resolves.
   * @returns the alert; null: none of this fingerprint stands
   * @throws when it cannot be written
   */
  async acknowledge(fingerprint: string, given: z.infer<typeof ACKNOWLEDGE>) {
    // A round marks as told what it is about to tell: saved before that, news that reach nobody would be taken for told after a death.
    for (let seen: unknown; seen !== this.settled; ) await (seen = this.settled);
    const now = this.options.wallClock();
    const alert = this.alerts.acknowledge(fingerprint, given, now);
    if (alert === null) return null;
    this.save();
    const shown = shownAlert(alert, this.options.config.timeZone);
    this.events.append([{ time: new Date(now).toISOString(), event: 'acknowledged', notified: [], ...shown }]);
    return shown;
  }

  setLimits(limits: Limits): void {
    writeLimits(this.options.config.dataDir, limits);
    this.limits = limits;
  }

  /** Sends a message that says that it is a test. */
  async test(): Promise<Delivery> {
    const { config, place, notifiers, pause } = this.options;
    const isZh = config.language === 'zh';
    const delivery = await deliver(
      notifiers,
      {
        title: isZh ? `MarketPrism ${place}：测试告警` : `MarketPrism ${place}: test alert`,
        text: isZh ? '这是一条测试消息，无需处理。' : 'This is a test: nothing is wrong, and nothing is to be done.',
        severity: 'hint',
        news: [],
      },
      pause,
    );
    this.count(delivery);
    return delivery;
  }

  /**
   * Tells people of an event that another script found, once, however often it is posted. What reaches nobody is not told, and may be posted again;
   * where there is nobody to tell, or it is less severe than they want to hear of, it is recorded, which is all that can be done.
   */
  async post(event: PostedEvent): Promise<PostAnswer> {
    const { id } = event;
    const coming = this.telling.get(id);
    if (coming !== undefined || this.toldEvents.has(id)) {
      this.countEvent('duplicate');
      const known = (await coming) ?? { id, told: true, delivered: [], failed: [] };
      return { ...known, duplicate: true };
    }
    const answer = this.tellEvent(event);
    this.telling.set(id, answer);
    try {
      return await answer;
    } finally {
      this.telling.delete(id);
    }
  }

  /** Resolves when no round runs. */
  async close(): Promise<void> {
    await this.tail;
    await Promise.allSettled(this.telling.values());
    for (const file of [this.events, this.results, this.undelivered]) file?.close();
  }

  /** A round that fails says so in health and log. */
  private async tried(depth: Depth, askedBy: ShownRound['asked_by']): Promise<ShownRound> {
    try {
      const shown = await this.run(depth, askedBy);
      this.fault = null;
      return shown;
    } catch (error) {
      this.fault = (error as Error).message.split('\n')[0]!;
      this.options.log.error({ event: 'round_failed', type: depth, err: error });
      throw error;
    } finally {
      // Also where nobody answered: that is when people must be told.
      signOfLife();
    }
  }

  private async run(depth: Depth, askedBy: ShownRound['asked_by']): Promise<ShownRound> {
    const { config, log, wallClock, clock } = this.options;
    const [began, steadily] = [wallClock(), clock()];
    const spanOf = (each: Depth): Span => ({ from: began - SPANS[each], to: began });
    // What a longer round found is ended only by one that looks as far back: of a quick round that is not asked for.
    const depthOf = (check: Check) => (depth === 'quick' ? depth : deeper(depth, this.alerts.depthOf(check.name)));
    const round = await askAll({
      config,
      now: began,
      clock,
      span: spanOf(depth),
      spanOf: (check) => spanOf(depthOf(check)),
    });
    const judged = round.outcomes.map((outcome): Judged => ({ outcome, depth: depthOf(outcome.check) }));
    this.limits = readLimits(config.dataDir);
    const news = this.alerts.take(judged, this.limits, began);
    const shown = this.shown(round, depth, askedBy, Math.round(clock() - steadily), news);
    this.rounds.push(shown);
    this.rounds.splice(0, this.rounds.length - MOST_ROUNDS);
    const settling = this.settle(shown, news, began);
    this.settled = settling.catch(() => null);
    await settling;
    const key = `${depth} ${round.verdict}`;
    this.counts.rounds.set(key, (this.counts.rounds.get(key) ?? 0) + 1);
    log.info({
      event: 'round',
      type: depth,
      status: round.verdict,
      ms: shown.ms,
      news: news.length,
      asked_by: askedBy,
    });
    return shown;
  }

  private async settle(shown: ShownRound, news: readonly News[], began: number): Promise<void> {
    // First of all: when the disk is full, that must be told, too.
    await this.tell(news);
    this.keep(shown, began);
    this.last[shown.type] = began;
    // A deeper round answers the questions of a shorter one.
    for (const shorter of DEPTHS.slice(0, DEPTHS.indexOf(shown.type))) this.last[shorter] = began;
    // After they were told: a death in between tells twice, never not at all.
    this.save();
  }

  private shown(round: Round, type: Depth, asked_by: ShownRound['asked_by'], ms: number, news: News[]): ShownRound {
    const { covered, outcomes, to } = round;
    this.serial += 1;
    return {
      id: `${to}-${this.serial}`,
      type,
      asked_by,
      began: new Date(to).toISOString(),
      ms,
      ...headOf(round),
      completeness: covered === null ? null : completenessOf(covered),
      checks: outcomes.map(flat),
      news: news.map(({ event, alert }) => ({ event, fingerprint: alert.fingerprint })),
    };
  }

  /** A file a day, by UTC. */
  private keep(shown: ShownRound, now: number): void {
    const { config, log } = this.options;
    const directory = join(config.dataDir, 'monitoring_results');
    const path = join(directory, `monitoring_${dayOf(now)}.jsonl`);
    if (this.results?.path !== path) {
      this.results?.close();
      this.results = new JsonlWriter(path, log);
      removeOldResults(directory, now);
    }
    this.results.append([shown]);
  }

  private async tell(news: readonly News[]): Promise<void> {
    const { config, log, notifiers, place, wallClock, pause } = this.options;
    const { language, timeZone, dataDir } = config;
    const loud = news.filter(({ isQuiet }) => !isQuiet);
    let delivery: Delivery = { delivered: [], failed: [] };
    if (loud.length > 0) {
      const now = wallClock();
      const message = messageOf({ news: loud, muted: mutedBy(news), language, place, timeZone, now });
      log.warn({ event: 'alert', title: message.title, text: message.text });
      delivery = await deliver(notifiers, message, pause);
      this.count(delivery);
      for (const { name, reason } of delivery.failed)
        log.error({ event: 'notification_failed', notifier: name, reason });
      if (delivery.delivered.length === 0 && notifiers.length > 0) {
        this.undelivered ??= new JsonlWriter(join(dataDir, 'alerts', 'undelivered.jsonl'), log);
        this.alerts.untell(loud);
        this.undelivered.append([{ time: new Date(now).toISOString(), ...message, failed: delivery.failed }]);
      }
    }
    this.events.append(
      news.map(({ event, alert, isQuiet }) => ({
        time: new Date(wallClock()).toISOString(),
        event,
        notified: isQuiet ? [] : delivery.delivered,
        ...shownAlert(alert, timeZone),
      })),
    );
  }

  private async tellEvent({ id, title, text, severity }: PostedEvent): Promise<PostAnswer> {
    const { config, log, notifiers, place, wallClock, pause } = this.options;
    const isHeard = SEVERITIES.indexOf(severity) >= SEVERITIES.indexOf(this.limits.notify_from);
    const news = [{ event: 'posted', id, title, severity }];
    const message = { title: `MarketPrism ${place}: ${title}`, text, severity, news };
    let delivery: Delivery = { delivered: [], failed: [] };
    if (isHeard && notifiers.length > 0) {
      delivery = await deliver(notifiers, message, pause);
      this.count(delivery);
    }
    const { delivered, failed } = delivery;
    for (const { name, reason } of failed) log.error({ event: 'notification_failed', notifier: name, reason });
    const time = new Date(wallClock()).toISOString();
    const told = delivered.length > 0 || failed.length === 0;
    this.countEvent(told ? (delivered.length > 0 ? 'told' : 'recorded') : 'unreached');
    if (told) {
      // First of all: whatever fails from here on, nobody is told again.
      this.toldEvents.add(id, wallClock());
      this.unreached.delete(id);
      this.events.append([{ time, event: 'posted', notified: delivered, id, title, text, severity }]);
    } else if (!this.unreached.has(id)) {
      if (this.unreached.size >= MOST_UNREACHED) this.unreached.clear();
      this.unreached.add(id);
      this.undelivered ??= new JsonlWriter(join(config.dataDir, 'alerts', 'undelivered.jsonl'), log);
      this.undelivered.append([{ time, ...message, failed }]);
    }
    return { id, told, duplicate: false, delivered, failed };
  }

  private countEvent(result: string): void {
    this.counts.events.set(result, (this.counts.events.get(result) ?? 0) + 1);
  }

  private count(delivery: Delivery): void {
    this.lastDelivery = delivery;
    const { delivered, failed } = delivery;
    const { notifications } = this.counts;
    const add = (key: string) => notifications.set(key, (notifications.get(key) ?? 0) + 1);
    for (const name of delivered) add(`${name} delivered`);
    for (const { name } of failed) add(`${name} failed`);
  }

  private get statePath(): string {
    return join(this.options.config.dataDir, 'state', 'alerts.json');
  }

  private save(): void {
    writeJsonAtomic(this.statePath, { alerts: this.alerts.list, last: this.last });
  }
}

function mutedBy(news: readonly News[]): Map<Part, number> {
  const counts = new Map<Part, number>();
  for (const { event, alert } of news)
    if (event === 'muted' && alert.muted_by !== null) counts.set(alert.muted_by, (counts.get(alert.muted_by) ?? 0) + 1);
  return counts;
}

function dayOf(time: number): string {
  return new Date(time).toISOString().slice(0, 10).replaceAll('-', '');
}

/** Removes the rounds of days that are older than are to be kept, and no other file. @param now ms */
export function removeOldResults(directory: string, now: number): void {
  const oldest = `monitoring_${dayOf(now - RESULTS_DAYS * DAY_MS)}.jsonl`;
  for (const name of readdirSync(directory))
    if (/^monitoring_\d{8}\.jsonl$/.test(name) && name < oldest) rmSync(join(directory, name));
}
