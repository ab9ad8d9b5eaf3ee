/** Whether this machine's clock is right: kept by NTP, and near those of the exchanges. */
import { z } from 'zod';
import { exchangeModule } from '../../../exchanges/index.ts';
import type { Exchange } from '../../rows.ts';
import { whyOf } from '../../web/overview_services.ts';
import { type DiagnoseContext, type Finding, finding, ok, type Probe } from './finding.ts';

/** Rows get the time of their arrival from this clock, and Hyperliquid's readings their minute. */
const MUCH_MS = 1000;
/** Beyond this, OKX refuses signed requests (its documentation: a request expires 30 s after its timestamp). */
const TOO_MUCH_MS = 30_000;
const ANSWER_WITHIN_MS = 5000;
const REMEDY = 'sudo apt-get install -y chrony && sudo systemctl enable --now chrony';

const millis = z.coerce.number().positive();
/** Where venues tell their time, and how. */
const TIMES: Partial<Record<Exchange, { path: string; answer: z.ZodType<number> }>> = {
  binance_spot: { path: '/api/v3/time', answer: z.object({ serverTime: millis }).transform((each) => each.serverTime) },
  binance_derivatives: {
    path: '/fapi/v1/time',
    answer: z.object({ serverTime: millis }).transform((each) => each.serverTime),
  },
  okx_spot: {
    path: '/api/v5/public/time',
    answer: z.object({ data: z.tuple([z.object({ ts: millis })]) }).transform(({ data }) => data[0].ts),
  },
  deribit_derivatives: {
    path: '/api/v2/public/get_time',
    answer: z.object({ result: millis }).transform((each) => each.result),
  },
};

export const clock: Probe = {
  area: 'clock',
  async look(context) {
    return [await synchronised(context), ...(await venueOffsets(context))];
  },
};

async function synchronised({ run }: DiagnoseContext): Promise<Finding> {
  const { code, stdout, stderr } = await run(
    'timedatectl',
    ['show', '--property=NTPSynchronized', '--value'],
    ANSWER_WITHIN_MS,
  );
  const said = stdout.trim();
  if (code !== 0 || !['yes', 'no'].includes(said)) {
    const why = stderr.trim().split('\n')[0] || `timedatectl says "${said}"`;
    return finding('unchecked', 'NTP', `whether the clock is synchronised is not known: ${why}`, REMEDY);
  }
  return said === 'yes' ? ok('NTP', 'synchronised') : finding('warning', 'NTP', 'not synchronised', REMEDY);
}

async function venueOffsets({ set: { config } }: DiagnoseContext): Promise<Finding[]> {
  if (config.mode === 'demo')
    return [ok('exchanges', 'are simulated here, by this clock: there is no other one to compare it with')];
  const asked = config.exchanges.flatMap((exchange) => {
    const time = TIMES[exchange];
    if (time === undefined) return [];
    const host = config.endpoints[exchange]?.rest ?? exchangeModule(exchange).hosts.rest;
    return [offsetOf(exchange, `${host}${time.path}`, time.answer)];
  });
  if (asked.length === 0) return [finding('unchecked', 'exchanges', 'none that is followed tells its time', null)];
  return Promise.all(asked);
}

async function offsetOf(exchange: string, url: string, schema: z.ZodType<number>): Promise<Finding> {
  try {
    const began = Date.now();
    const answer = await fetch(url, { signal: AbortSignal.timeout(ANSWER_WITHIN_MS) });
    const theirs = schema.parse(await answer.json());
    return judgeOffset(exchange, began, theirs, Date.now());
  } catch (error) {
    return finding('unchecked', exchange, `its time is not known: ${whyOf(error)}`, `curl -s ${url}`);
  }
}

/** @param began and @param ended by our clock, @param theirs told somewhere between the two; all ms */
export function judgeOffset(exchange: string, began: number, theirs: number, ended: number): Finding {
  const offset = Math.round((began + ended) / 2 - theirs);
  const uncertain = Math.round((ended - began) / 2);
  const told = `our clock is ${Math.abs(offset)} ± ${uncertain} ms ${offset < 0 ? 'behind' : 'ahead'}`;
  // Only what the way there and back cannot explain is the clock's.
  const least = Math.abs(offset) - uncertain;
  if (least <= MUCH_MS && uncertain > MUCH_MS)
    return finding('unchecked', exchange, `${told}: too slow an answer to tell`, null);
  if (least <= MUCH_MS) return ok(exchange, told);
  return finding(least > TOO_MUCH_MS ? 'error' : 'warning', exchange, told, REMEDY);
}
