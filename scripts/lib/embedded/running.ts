/** The server's own table of running queries: from the moment a request's headers arrived until nothing of it runs. */
import { ClickHouseFault } from './faults.ts';

export type Phase = 'receiving' | 'waiting' | 'running';

/** One running query. */
export interface Running {
  /** Unique in this process; marks the query inside the engine. */
  readonly tag: number;
  readonly queryId: string;
  readonly user: string;
  readonly database: string;
  readonly userAgent: string;
  readonly httpMethod: number;
  readonly address: string;
  readonly port: number;
  /** Epoch milliseconds. */
  readonly startedAt: number;
  query: string;
  phase: Phase;
  cancelled: boolean;
  /** A read: nobody wants it to go on when its client has gone. */
  cancelOnClose: boolean;
  /** Called once when the query is cancelled, whatever it is doing. */
  onCancel: () => void;
  /** Resolves when nothing of the query can happen any more. */
  readonly ended: Promise<void>;
  end(): void;
}

export class RunningQueries {
  readonly #byTag = new Map<number, Running>();
  readonly #byId = new Set<string>();
  #lastTag = 0;

  /**
   * Counts a query as running.
   * @throws ClickHouseFault (216) when one with this id runs already.
   */
  start(
    about: Pick<Running, 'queryId' | 'user' | 'database' | 'userAgent' | 'httpMethod' | 'address' | 'port'>,
  ): Running {
    if (this.#byId.has(about.queryId)) {
      throw new ClickHouseFault(
        216,
        'QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING',
        `Query with id = ${about.queryId} is already running.`,
      );
    }
    let resolve: () => void = () => {};
    const ended = new Promise<void>((done) => {
      resolve = done;
    });
    const running: Running = {
      ...about,
      tag: ++this.#lastTag,
      startedAt: Date.now(),
      query: '',
      phase: 'receiving',
      cancelled: false,
      cancelOnClose: false,
      onCancel: () => {},
      ended,
      end: () => {
        if (!this.#byTag.delete(running.tag)) return;
        this.#byId.delete(running.queryId);
        resolve();
      },
    };
    this.#byTag.set(running.tag, running);
    this.#byId.add(running.queryId);
    return running;
  }

  /** Asks the query to stop; it is over when its `ended` resolves. */
  cancel(running: Running): void {
    if (running.cancelled) return;
    running.cancelled = true;
    running.onCancel();
  }

  all(): Running[] {
    return [...this.#byTag.values()];
  }

  byId(queryId: string): Running | undefined {
    return this.all().find((running) => running.queryId === queryId);
  }

  get size(): number {
    return this.#byTag.size;
  }
}

/** What a cancelled query answers. */
export function cancelledFault(): ClickHouseFault {
  return new ClickHouseFault(394, 'QUERY_WAS_CANCELLED', 'Query was cancelled');
}
