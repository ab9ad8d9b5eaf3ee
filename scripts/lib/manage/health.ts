/**
 * How each service is: by its /health, as the pages ask it; the broker by its streams, the database by a query, the desk's scripts by the state files
 * that they write.
 */
import { createClickHouse, hotServer } from '../clickhouse.ts';
import type { Config } from '../config.ts';
import { createLogger } from '../log.ts';
import type { CheckStatus } from '../service.ts';
import { serviceOf } from '../services.ts';
import type { Verdict } from '../status.ts';
import { BrokerLook } from '../web/overview_broker.ts';
import { whyOf } from '../web/overview_services.ts';
import type { WebContext } from '../web/route.ts';
import { serviceChecks, writerOf } from '../web/service_health.ts';

/** What answers later than this is not well, ms. */
const TIMEOUT_MS = 3000;
const RANK: readonly CheckStatus[] = ['healthy', 'degraded', 'unhealthy'];

export interface Health {
  status: Verdict;
  /** One line when it is not healthy. */
  reason: string | null;
  /** It answered; false for those that have nothing to be asked at. */
  answers: boolean;
}

/** What the parts of the web API that are shared here work with; `close` gives its connections back. */
export function lookingContext(config: Config): WebContext & { close(): Promise<void> } {
  const stop = new AbortController();
  const client = createClickHouse(hotServer(config), 'marketprism-manage');
  // Those parts tell in their answers what is wrong: a second time in a log would only disturb the screen.
  const log = createLogger('manage', 'silent');
  const close = async () => {
    stop.abort();
    await client.close();
  };
  return { config, log, clock: Date.now, client, stop: stop.signal, close };
}

/** Looks at all services of a configuration; several times with one connection. */
export class HealthLook {
  private readonly broker: BrokerLook;

  constructor(private readonly context: WebContext) {
    this.broker = new BrokerLook(context);
  }

  /** @returns by the names of the services; none of those that nobody can ask, as the simulator of a live set */
  async ask(): Promise<Map<string, Health>> {
    const { config } = this.context;
    const [checks, broker, web, simulator] = await Promise.all([
      serviceChecks(this.context),
      this.askBroker(),
      askWeb(config),
      config.mode === 'demo' ? askSimulator(config) : null,
    ]);
    const found = new Map<string, Health>([
      ['nats-server', broker],
      ['web', web],
    ]);
    if (simulator !== null) found.set('exchange_sim', simulator);
    for (const [check, { status, error_message, response_time }] of Object.entries(checks)) {
      const name = check === 'clickhouse' ? 'clickhouse_embedded' : (writerOf(check) ?? check);
      const answers = response_time !== undefined;
      found.set(name, worse(found.get(name), { status, reason: error_message, answers }));
    }
    return found;
  }

  private async askBroker(): Promise<Health> {
    const asked = await this.broker.ask();
    if ('fault' in asked) return { status: 'unhealthy', reason: asked.fault, answers: false };
    const { missing, streams } = asked.figures;
    const unread = streams.filter((each) => each.unread === null).map(({ name }) => name);
    const faults = [
      ...(missing.length === 0 ? [] : [`streams that are not there: ${missing.join(', ')}`]),
      ...(unread.length === 0 ? [] : [`the store has not all its durables in ${unread.join(', ')}`]),
    ];
    return { status: faults.length === 0 ? 'healthy' : 'unhealthy', reason: faults.join('; ') || null, answers: true };
  }
}

/** One /health of a collector that is one of several. */
export async function askHealth(port: number): Promise<Health> {
  try {
    const answer = await fetch(`http://127.0.0.1:${port}/health`, { signal: AbortSignal.timeout(TIMEOUT_MS) });
    const { status } = (await answer.json()) as { status?: unknown };
    const known = RANK.find((each) => each === status);
    if (known === undefined) return away(`what answers on port ${port} is no service of ours`);
    return { status: known, reason: known === 'healthy' ? null : `it says ${known}`, answers: true };
  } catch (error) {
    return away(`port ${port} does not answer as a service: ${whyOf(error)}`);
  }
}

/** The pages answer to everybody at /ping alone; their /health tells of all the others. */
async function askWeb({ webHost, webPort }: Config): Promise<Health> {
  const host = ['0.0.0.0', '::'].includes(webHost) ? '127.0.0.1' : webHost.includes(':') ? `[${webHost}]` : webHost;
  try {
    const answer = await fetch(`http://${host}:${webPort}/ping`, { signal: AbortSignal.timeout(TIMEOUT_MS) });
    if ((await answer.text()).trim() === 'pong') return { status: 'healthy', reason: null, answers: true };
    return away(`what answers on port ${webPort} is not web.ts`);
  } catch (error) {
    return away(`port ${webPort} does not answer as a service: ${whyOf(error)}`);
  }
}

/** The simulated exchanges are where the demo's endpoints say. */
async function askSimulator({ endpoints }: Config): Promise<Health> {
  const hosts = Object.entries(endpoints);
  if (hosts.length === 0) return away('it has not said where its exchanges are');
  const asked = hosts.map(async ([name, { rest }]) => {
    try {
      await (await fetch(rest, { signal: AbortSignal.timeout(TIMEOUT_MS) })).text();
      return null;
    } catch (error) {
      return `${name} does not answer: ${whyOf(error)}`;
    }
  });
  const faults = (await Promise.all(asked)).filter((each) => each !== null);
  return {
    status: faults.length === 0 ? 'healthy' : 'unhealthy',
    reason: faults[0] ?? null,
    answers: faults.length === 0,
  };
}

function away(reason: string): Health {
  return { status: 'unhealthy', reason, answers: false };
}

/** Of a script with several series the worst counts, and each reason is told once. */
function worse(known: Health | undefined, next: Health): Health {
  if (known === undefined) return next;
  const rank = (each: Health) => RANK.indexOf(each.status as CheckStatus);
  const reasons = new Set([known.reason, next.reason].filter((each) => each !== null));
  return {
    status: rank(next) > rank(known) ? next.status : known.status,
    reason: [...reasons].join('; ') || null,
    answers: known.answers || next.answers,
  };
}

/** Whether anything of a service can be asked whether it is up, besides its process. */
export function isAskable(name: string): boolean {
  const known = name.replace(/@.*/, '');
  return serviceOf(known).port !== null || ['nats-server', 'clickhouse_embedded', 'exchange_sim'].includes(known);
}
