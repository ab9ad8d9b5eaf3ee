/** What will be done to a pipeline, and when: drawn from a seed alone, so that a run can be had again by its number. */
import type { Exchange } from '../rows.ts';
import type { Random } from '../sim/market.ts';
import type { ClickHouseFault } from './clickhouse_proxy.ts';
import type { Disk } from './disks.ts';

export const COLLECTORS = ['collector', 'collector_b'] as const;
export type CollectorName = (typeof COLLECTORS)[number];
/** Whose clock can be set. */
export type Stepped = CollectorName | 'store' | 'replicate';
/** Who can be killed and stopped: all but the venues. */
export type Target = Stepped | 'clickhouse_embedded' | 'nats-server';

const TARGETS: readonly Target[] = [...COLLECTORS, 'store', 'replicate', 'clickhouse_embedded', 'nats-server'];
const STEPPED: readonly Stepped[] = [...COLLECTORS, 'store', 'replicate'];

/** Faults that the simulated venues know, each on one exchange. */
const VENUE_FAULTS = [
  'close',
  'drop',
  'repeat',
  'reorder',
  'silence',
  'garbage',
  'rest',
  'ack_silent',
  'shutdown_notice',
] as const;
type VenueFault = (typeof VENUE_FAULTS)[number];

/** One thing that is done to the pipeline. Times in ms. */
export type Fault =
  | { kind: 'kill'; target: Target }
  /** SIGSTOP, and SIGCONT after this time. */
  | { kind: 'stop'; target: Target; forMs: number }
  /** Of so many requests of the store and of the replication. */
  | { kind: 'clickhouse'; fault: ClickHouseFault; count: number }
  | { kind: 'broker_away'; forMs: number }
  | { kind: 'disk_full'; disk: Disk; forMs: number }
  /** A machine's clock is set; back after this time. */
  | { kind: 'clock'; target: Stepped; byMs: number; forMs: number }
  | { kind: 'venue'; action: VenueFault; exchange: Exchange; request: Record<string, unknown> };

export interface PlannedFault {
  /** ms after the sources began. */
  atMs: number;
  fault: Fault;
}

export interface PlanOptions {
  forMs: number;
  random: Random;
  exchanges: readonly Exchange[];
  /** Disks that can be filled. */
  disks: readonly Disk[];
}

/** Rows flow before the first fault, and after the last. */
const QUIET_BEGIN_MS = 6000;
const QUIET_END_MS = 6000;
/** Between two faults, on average. */
const EVERY_MS = 5000;
const SECOND_MS = 1000;
const LONGEST_STOP_MS = 8000;
const LONGEST_STEP_MS = 150_000;
/** The broker is away for a minute, in a shorter run for a part of it. */
const BROKER_AWAY_MS = 60_000;
const DISK_FULL_MS = 20_000;
const SHARE_OF_RUN = 6;

/** All kinds of faults once, in a drawn order, then all again: a run of ten minutes has each of them. */
class Bag {
  private left: Maker[] = [];

  constructor(
    private readonly makers: readonly Maker[],
    private readonly random: Random,
  ) {}

  draw(): Fault {
    if (this.left.length === 0) this.left = shuffled(this.makers, this.random);
    return this.left.pop()!();
  }
}

type Maker = () => Fault;

/** The faults of a run, by time. */
export function faultPlan(options: PlanOptions): PlannedFault[] {
  const { forMs, random } = options;
  const bag = new Bag(makersOf(options), random);
  const plan: PlannedFault[] = [];
  for (let atMs = QUIET_BEGIN_MS; ; ) {
    // Exponential: now and then two are close together.
    atMs += -Math.log(1 - random()) * EVERY_MS;
    if (atMs > forMs - QUIET_END_MS) return plan;
    plan.push({ atMs: Math.round(atMs), fault: bag.draw() });
  }
}

function makersOf({ forMs, random, exchanges, disks }: PlanOptions): Maker[] {
  const between = (from: number, to: number) => Math.round(from + random() * (to - from));
  const one = <T>(of: readonly T[]): T => of[Math.floor(random() * of.length)]!;
  const most = (ms: number) => Math.min(ms, Math.round(forMs / SHARE_OF_RUN));
  const clickhouse = (fault: ClickHouseFault, to: number): Maker => {
    return () => ({ kind: 'clickhouse', fault, count: between(1, to) });
  };
  return [
    ...TARGETS.flatMap((target): Maker[] => [
      () => ({ kind: 'kill', target }),
      () => ({ kind: 'stop', target, forMs: between(SECOND_MS, LONGEST_STOP_MS) }),
    ]),
    clickhouse('erring', 10),
    clickhouse('unavailable', 10),
    clickhouse('refused', 10),
    clickhouse('body_cut', 4),
    clickhouse('answer_lost', 4),
    clickhouse('answer_late', 1),
    () => ({ kind: 'broker_away', forMs: most(BROKER_AWAY_MS) }),
    ...disks.map(
      (disk): Maker =>
        () => ({ kind: 'disk_full', disk, forMs: between(2 * SECOND_MS, most(DISK_FULL_MS)) }),
    ),
    ...STEPPED.map((target): Maker => {
      return () => ({
        kind: 'clock',
        target,
        byMs: (random() < 0.5 ? -1 : 1) * between(SECOND_MS, LONGEST_STEP_MS),
        forMs: between(SECOND_MS, most(BROKER_AWAY_MS)),
      });
    }),
    ...VENUE_FAULTS.map((action): Maker => {
      return () => ({ kind: 'venue', action, exchange: one(exchanges), request: venueRequest(action, between, one) });
    }),
  ];
}

/** What the simulator's control wants beside action and exchange. */
function venueRequest(
  action: VenueFault,
  between: (from: number, to: number) => number,
  one: <T>(of: readonly T[]) => T,
): Record<string, unknown> {
  const type = one(['trade', 'orderbook_update'] as const);
  switch (action) {
    case 'drop':
    case 'repeat':
    case 'reorder':
      return { data_type: type, count: between(1, 5) };
    case 'silence':
      return { data_type: type, seconds: between(1, 8) };
    case 'rest':
      return { status: one([429, 418, 403] as const), retry_after: between(1, 3), count: between(1, 5) };
    case 'garbage':
    case 'ack_silent':
      return { count: 1 };
    case 'close':
    case 'shutdown_notice':
      return {};
  }
}

function shuffled<T>(items: readonly T[], random: Random): T[] {
  const out = [...items];
  for (let last = out.length - 1; last > 0; last -= 1) {
    const other = Math.floor(random() * (last + 1));
    [out[last], out[other]] = [out[other]!, out[last]!];
  }
  return out;
}

/** One line of the time line. */
export function describeFault(fault: Fault): string {
  const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;
  switch (fault.kind) {
    case 'kill':
      return `kill -9 ${fault.target}`;
    case 'stop':
      return `SIGSTOP ${fault.target} for ${seconds(fault.forMs)}`;
    case 'clickhouse':
      return `ClickHouse: ${fault.fault} × ${fault.count}`;
    case 'broker_away':
      return `broker away for ${seconds(fault.forMs)}`;
    case 'disk_full':
      return `disk of ${fault.disk} full for ${seconds(fault.forMs)}`;
    case 'clock':
      return `clock of ${fault.target} set ${fault.byMs > 0 ? 'ahead' : 'back'} by ${seconds(Math.abs(fault.byMs))} for ${seconds(fault.forMs)}`;
    case 'venue':
      return `${fault.exchange}: ${[fault.action, ...Object.entries(fault.request).map(([name, value]) => `${name}=${value}`)].join(' ')}`;
  }
}
