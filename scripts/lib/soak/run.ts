/** One soak run: samples on their schedule, everything stopped and started again in the middle, and the balance at the end. */

import type { ClickHouseClient } from '@clickhouse/client';
import { createClickHouse, hotServer } from '../clickhouse.ts';
import { pause } from '../pause.ts';
import { TABLES } from '../rows.ts';
import { steadyNow } from '../steady.ts';
import type { ChildEnd } from '../system.ts';
import { nameOf } from './criteria.ts';
import { History, missedRounds } from './history.ts';
import {
  acceptedRows,
  countComeAgain,
  countRows,
  drawLedger,
  type Leg,
  missingRows,
  type Sequences,
} from './ledger.ts';
import { type RunPlan, type RunState, reportOf, writeReport, writeText } from './record.ts';
import type { SoakLedger, SoakReport } from './report.ts';
import { Sampler } from './sampler.ts';
import { Schedule } from './schedule.ts';
import { holdingsOf, judgeStop } from './shutdown.ts';
import type { SoakStage } from './stage.ts';

const SIMULATOR = 'exchange_sim';
const ALERTER = 'correlation_alert';
const COLLECTOR = 'collector';
/** What a venue tells of its past, it tells soon after a subscription: rows that come again are counted after this. */
const COME_AGAIN_MS = 60_000;
/** For one query of the balance. */
const COUNTING_LIMIT_MS = 900_000;
/** What is noted of streams and tables; no row of a market. */
const NOTES = new Set(['stream_epochs', 'schema_migrations']);
/** Where no row has come by then, none will. */
const FIRST_ROW_MS = 60_000;
const NOTHING: Sequences = { MARKET_DATA: 0, ORDERBOOK_SNAP: 0 };
const EVERYTHING: Sequences = { MARKET_DATA: Number.MAX_SAFE_INTEGER, ORDERBOOK_SNAP: Number.MAX_SAFE_INTEGER };

export interface SoakPlan extends RunPlan {
  /** Of the reports. */
  directory: string;
  roundSeconds: number;
}

/** Who is shown how it goes. */
export interface SoakView {
  /** @param nextMs until the next sample; null: there is none */
  sampled(report: SoakReport, nextMs: number | null): void;
  note(line: string): void;
}

export class SoakRun {
  private readonly history = new History();
  private readonly sampler: Sampler;
  private readonly schedule: Schedule;
  private readonly state: RunState;
  private readonly notes: string[] = [];
  private readonly legs: Leg[] = [];
  private beganSteady = steadyNow();
  /** Rows that came again after the stop in the middle. */
  private comeAgain: Promise<ReadonlyMap<string, number>> | null = null;
  private middle: Promise<void> | null = null;
  /** Why the stop in the middle came to nothing. */
  private failure: Error | null = null;
  private analysisErrors = 0;
  private checkpoints = 0;

  constructor(
    private readonly plan: SoakPlan,
    private readonly stage: SoakStage,
    private readonly view: SoakView,
  ) {
    this.sampler = new Sampler(stage, plan.sampleMs, () => this.isPaused);
    this.schedule = new Schedule(plan.sampleMs, Math.floor(plan.forMs / plan.sampleMs));
    this.state = {
      ...{ began: Date.now(), ended: null, written: Date.now(), samplesDue: 0, samplesMissing: 0, error: null },
      ...{ isOver: false, roundSeconds: plan.roundSeconds, roundsMissing: 0, analysisErrors: 0, unplannedEnds: 0 },
      ...{ stops: [], stopsDone: 0, ledger: null, checkpoints: [], pauses: [], notes: this.notes },
      problems: this.sampler.problems,
    };
  }

  /** Worth a look: told, and kept in the report. */
  note(line: string): void {
    this.notes.push(`${new Date().toISOString().slice(11, 19)} ${line}`);
    this.view.note(line);
  }

  /** Runs to the end of the plan, or until it is stopped. Whatever happens, everything is stopped and the report is written. */
  async run(stop: AbortSignal): Promise<SoakReport> {
    const { system } = this.stage;
    const stopped = new Promise<never>((_, fail) => stop.addEventListener('abort', () => fail(stop.reason)));
    const whole = this.whole(stop);
    try {
      await Promise.race([whole, stopped]);
    } catch (error) {
      this.state.error = (error as Error).message.slice(0, 400) || (error as Error).name;
      // What is still under way ends with the processes; its complaint about that is no news.
      void whole.catch(() => undefined);
    }
    const held = holdingsOf(system);
    const at = this.now();
    const ends = await system.stop();
    await this.keepStop(at, ends, held);
    return this.end();
  }

  private async whole(stop: AbortSignal): Promise<void> {
    await this.stage.system.start();
    this.history.rows = await this.sampler.prepare();
    this.begin();
    await this.sampling(stop);
    await this.middle;
    if (this.failure !== null) throw this.failure;
    this.view.note('the sources stop: waiting until all is stored, filled and copied');
    await this.balance();
  }

  /** From here on time counts. */
  private begin(): void {
    this.beganSteady = steadyNow();
    this.state.began = Date.now();
  }

  /** The run's own clock: it goes on evenly, however the wall clock is set. ms since the epoch. */
  private now(): number {
    return Math.round(this.state.began + steadyNow() - this.beganSteady);
  }

  private get isPaused(): boolean {
    return this.state.pauses.at(-1)?.to === null;
  }

  private async sampling(stop: AbortSignal): Promise<void> {
    const { schedule, plan, state } = this;
    for (;;) {
      const due = schedule.next(this.now() - state.began);
      state.samplesMissing += due.missed;
      if (due.index === null) return;
      await pause(Math.max(due.atMs - (this.now() - state.began), 0), stop);
      await this.sample();
      this.look(due.atMs);
      // Not waited for: samples go on meanwhile.
      if (due.atMs >= plan.forMs / 2)
        this.middle ??= this.stopAndStart().catch((error: Error) => {
          this.failure = error;
        });
      if (this.failure !== null) throw this.failure;
      this.countComeAgain(false);
      if (due.atMs >= FIRST_ROW_MS && this.hasNoRow)
        throw new Error(`no row has come within ${FIRST_ROW_MS / 1000} s: are the exchanges reachable?`);
    }
  }

  /** One that cannot be taken is missing, and told; it does not end the run. */
  private async sample(): Promise<void> {
    try {
      this.history.add(await this.sampler.take(this.now()));
    } catch (error) {
      this.state.samplesMissing += 1;
      this.sampler.note(`a sample could not be taken: ${(error as Error).message}`);
    }
  }

  /** Tables are counted, and no row of a market has come; that none came is a row, too, among the gaps. */
  private get hasNoRow(): boolean {
    const { hotDatabase } = this.stage.config;
    const market = this.history.tables.filter(
      (each) => each.database === hotDatabase && each.table !== TABLES.gap.name,
    );
    return market.length > 0 && market.every(({ rows, table }) => rows === 0 || NOTES.has(table));
  }

  /** What a sample changes beside the columns. */
  private look(atMs: number): void {
    const { history, plan, state, stage } = this;
    for (const process of history.processes)
      process.restarts = Math.max(process.restarts, stage.system.children.get(process.name)?.restarts ?? 0);
    this.analysisErrors = history.processes.find(({ name }) => name === ALERTER)?.errors ?? 0;
    const reached = Math.floor(atMs / plan.checkpointMs);
    if (reached > this.checkpoints) {
      this.checkpoints = reached;
      const { verdict, criteria } = this.report();
      const named = (wanted: string) => criteria.filter((each) => each.verdict === wanted).map(({ name }) => name);
      const [failed, open] = [named('failed'), named('incomplete')];
      const note = [
        ...(failed.length === 0 ? [] : [`failed so far: ${failed.join(', ')}`]),
        ...(open.length === 0 ? [] : [`not known yet: ${open.join(', ')}`]),
      ];
      // Of this very sample: an older count would tell of another time.
      const rows = history.flow.rows.at(-1) === null ? null : history.rows;
      const { errors, times } = history;
      state.checkpoints.push({ at: times.at(-1) ?? this.now(), verdict, rows, errors, note: note.join('; ') || null });
      writeText(plan.directory, this.report());
    }
    const report = this.report();
    writeReport(plan.directory, report);
    const next = atMs + plan.sampleMs;
    this.view.sampled(report, next > plan.forMs ? null : state.began + next - this.now());
  }

  private report(): SoakReport {
    const { state, history, schedule, plan } = this;
    state.written = this.now();
    state.samplesDue = schedule.dueBy(state.written - state.began);
    // A sample that is due this moment is under way.
    if (state.ended === null)
      state.samplesDue = Math.min(state.samplesDue, history.times.length + state.samplesMissing);
    state.analysisErrors = this.analysisErrors;
    state.unplannedEnds = history.processes.reduce((sum, { restarts }) => sum + restarts, 0);
    const until = Math.min(state.written, state.began + plan.forMs);
    state.roundsMissing = missedRounds(history.rounds, plan.roundSeconds * 1000, state.began, state.pauses, until);
    return reportOf(plan, state, history);
  }

  /** The test in the middle: everything but the exchanges is stopped in order, looked at, and started again. */
  private async stopAndStart(): Promise<void> {
    const { system, config } = this.stage;
    const { state } = this;
    const at = this.now();
    state.pauses.push({ from: at, to: null });
    this.note('the graceful stop: everything but the exchanges is stopped, and started again');
    const since = system.startedAt;
    const held = holdingsOf(system, [SIMULATOR]);
    const { ends, last } = await system.halt();
    await this.keepStop(at, ends, held);
    if (last === null) throw new Error('the broker has not said how far its streams are: no balance can be drawn');
    this.legs.push({ from: NOTHING, to: last, received: this.accepted(since) });
    const began = steadyNow();
    await system.resume();
    const took_ms = Math.round(steadyNow() - began);
    state.stops = [...state.stops, { at: this.now(), what: 'everything runs again', ok: true, took_ms, note: null }];
    state.pauses.at(-1)!.to = this.now();
    this.note(`everything runs again after ${Math.round((this.now() - at) / 1000)} s in ${config.dataDir}`);
  }

  private async keepStop(at: number, ends: readonly ChildEnd[], held: ReturnType<typeof holdingsOf>): Promise<void> {
    const { state } = this;
    state.stops = [...state.stops, ...(await judgeStop(at, ends, held, this.stage.ports))];
    state.stopsDone += 1;
  }

  /** null: the collector has died meanwhile, and took that with it. */
  private accepted(since: number): ReadonlyMap<string, number> | null {
    const { system, config } = this.stage;
    return (system.children.get(COLLECTOR)?.restarts ?? 0) > 0 ? null : acceptedRows(config, since);
  }

  private countComeAgain(isNow: boolean): void {
    const { system, config } = this.stage;
    const [leg, since] = [this.legs[0], this.state.pauses[0]?.to ?? null];
    if (leg === undefined || since === null || this.comeAgain !== null) return;
    if (!isNow && this.now() - since < COME_AGAIN_MS) return;
    this.comeAgain = this.withPatience((client) =>
      system.withNats((nats) => countComeAgain(nats, client, config.hotDatabase, leg.to)),
    ).catch((error: Error) => {
      this.note(`rows that came again are counted at the end: ${error.message}`);
      return new Map();
    });
  }

  /** With a client whose queries may take as long as counting a day of rows does. */
  private async withPatience<T>(work: (client: ClickHouseClient) => Promise<T>): Promise<T> {
    const client = createClickHouse(hotServer(this.stage.config), 'marketprism-soak', COUNTING_LIMIT_MS);
    try {
      return await work(client);
    } finally {
      await client.close();
    }
  }

  private async balance(): Promise<void> {
    const { state } = this;
    const { system, config } = this.stage;
    const first = this.legs[0];
    const since = state.pauses[0]?.from ?? system.startedAt;
    const sent = await system.quiet();
    this.countComeAgain(true);
    this.legs.push({ from: first?.to ?? NOTHING, to: EVERYTHING, received: this.accepted(since) });
    await this.withPatience(async (client) => {
      state.ledger = await this.drawn(client, sent, (await this.comeAgain) ?? new Map());
      if (!state.ledger.balanced && first !== undefined) {
        // What came again later than usual: all that the broker still has is read for it.
        const later = await system.withNats((nats) => countComeAgain(nats, client, config.hotDatabase, first.to));
        state.ledger = await this.drawn(client, sent, later);
      }
      const tables = await this.sampler.tables(client);
      if (tables !== null) this.history.tables = tables;
    });
  }

  private async drawn(
    client: ClickHouseClient,
    sent: ReadonlyMap<string, number> | null,
    again: ReadonlyMap<string, number>,
  ): Promise<SoakLedger> {
    const { legs } = this;
    const { system, config } = this.stage;
    const stored = await countRows(client, config, legs);
    const gaps = await missingRows(system, client);
    return drawLedger({ stored, sent, legs, comeAgain: legs.map((_, i) => (i === 0 ? new Map() : again)), gaps });
  }

  private async end(): Promise<SoakReport> {
    const { state, history, plan } = this;
    await this.sampler.close();
    history.addLate(this.sampler.logs().errors);
    state.isOver = true;
    state.ended = this.now();
    const due = this.schedule.dueBy(state.ended - state.began);
    state.samplesMissing = Math.max(state.samplesMissing, due - history.times.length);
    const empty = history.tables.filter(({ rows }) => rows === 0).map(nameOf);
    if (empty.length > 0) this.view.note(`tables without a row: ${empty.join(', ')}`);
    const report = this.report();
    writeReport(plan.directory, report);
    writeText(plan.directory, report);
    return report;
  }
}
