/** `/api/quality/*`: rounds of checks from the files that monitor.ts writes, whether it runs or not. Alerts and limits are the monitor's own. */
import { join } from 'node:path';
import { z } from 'zod';
import { CHECKS } from '../checks/index.ts';
import { KINDS } from '../checks/kinds.ts';
import { DEPTHS } from '../checks/round.ts';
import { DATA_TYPES, EXCHANGES } from '../rows.ts';
import { keypoints } from './keypoints.ts';
import { limit, offset, utcTime, wholeNumber } from './parameters.ts';
import { KEPT_ROUND, type KeptRound, ROUND_HEAD, RoundHistory } from './round_history.ts';
import { type Route, route, type WebContext, WebError } from './route.ts';

const DAY_MS = 86_400_000;
/** Without a `from` so much is shown. */
const SPAN_MS = 30 * DAY_MS;

const text = z.string().nullable();
const SPAN = { from: utcTime.optional(), to: utcTime.optional() };

const ROUNDS = z.object({
  total_count: z.number(),
  count: z.number(),
  bad_lines: z.number().describe('Lines of the files that are no round.'),
  data: z.array(ROUND_HEAD),
});
export type QualityRounds = z.infer<typeof ROUNDS>;

const FINDING = KEPT_ROUND.shape.checks.element.shape.findings.element.extend({
  kind_en: z.string(),
  kind_zh: z.string(),
  ...{ exchange: text, market_type: text, symbol: text },
  data_type: text.describe('null, as the others: it is not about a stream.'),
});
const ROUND = ROUND_HEAD.omit({ findings: true, unchecked: true, raised: true }).extend({
  exit_code: z.number(),
  coverage: KEPT_ROUND.shape.coverage,
  checks: z.array(
    KEPT_ROUND.shape.checks.element.extend({
      zh: z.string(),
      repairs: z.array(z.string()),
      findings: z.array(FINDING),
    }),
  ),
});
export type QualityRound = z.infer<typeof ROUND>;
const ONE = z.object({ round: ROUND.nullable().describe('null: there is none yet.') });
export type QualityOne = z.infer<typeof ONE>;
export type QualityCheck = QualityRound['checks'][number];
export type QualityFinding = z.infer<typeof FINDING>;

const SERIES = z.object({
  type: z.enum(DEPTHS),
  total_count: z.number().describe('Rounds of the span; where they are many fewer are given, the lowest among them.'),
  times: z.array(z.number()).describe('When each began, ms.'),
  completeness: z.array(z.number().nullable()).describe('Percent.'),
  findings: z.array(z.number()).describe('Hints apart.'),
});
export type QualitySeries = z.infer<typeof SERIES>;

const histories = new WeakMap<WebContext, RoundHistory>();

function historyOf(context: WebContext): RoundHistory {
  let own = histories.get(context);
  if (own === undefined) {
    own = new RoundHistory(join(context.config.dataDir, 'monitoring_results'));
    histories.set(context, own);
  }
  return own;
}

/** @throws WebError 400 when it ends before it begins */
function spanOf(context: WebContext, { from, to }: { from?: number | undefined; to?: number | undefined }) {
  const end = to ?? context.clock();
  const begin = from ?? end - SPAN_MS;
  if (begin > end) throw new WebError(400, 'is after to', 'from');
  return [begin, end] as const;
}

/** What a finding is about, as far as it is a stream: `trade okx_spot spot BTC-USDT`, with or without the symbol. */
function streamOf(subject: string) {
  const [type, exchange, market, symbol, ...more] = subject.split(' ');
  const isStream = DATA_TYPES.some((each) => each === type) && EXCHANGES.some((each) => each === exchange);
  if (!isStream || more.length > 0) return { data_type: null, exchange: null, market_type: null, symbol: null };
  return { data_type: type!, exchange: exchange!, market_type: market ?? null, symbol: symbol ?? null };
}

function shown({ news: _, ...round }: KeptRound): QualityRound {
  const checks = round.checks.map((check) => {
    const known = CHECKS.find(({ name }) => name === check.name);
    const findings = check.findings.map((finding) => {
      const words: { en: string; zh: string } | undefined = KINDS[finding.kind as keyof typeof KINDS];
      const { kind } = finding;
      return { ...finding, kind_en: words?.en ?? kind, kind_zh: words?.zh ?? kind, ...streamOf(finding.subject) };
    });
    return { ...check, zh: known?.zh ?? check.name, repairs: check.repairs ?? [], findings };
  });
  return { ...round, checks };
}

export const QUALITY_ROUTES: Route[] = [
  route({
    ...{
      method: 'GET',
      path: '/api/quality/rounds',
      summary: 'Rounds of checks of the last 30 days, the newest first.',
    },
    query: z.strictObject({
      type: z.enum(DEPTHS).optional(),
      status: ROUND_HEAD.shape.status.optional(),
      ...{ ...SPAN, limit: limit(20, 1000), offset },
    }),
    answer: ROUNDS,
    async handle(context, { query }): Promise<QualityRounds> {
      const { rounds, bad } = await historyOf(context).between(...spanOf(context, query));
      const wanted = rounds
        .filter(({ type, status }) => (query.type ?? type) === type && (query.status ?? status) === status)
        .reverse();
      const data = wanted.slice(query.offset, query.offset + query.limit);
      return { total_count: wanted.length, count: data.length, bad_lines: bad, data };
    },
  }),
  route({
    ...{ method: 'GET', path: '/api/quality/rounds/:id', summary: 'A round: each check with what it found.' },
    params: z.strictObject({
      id: z.string().regex(/^\d{12,14}-\d{1,9}$/, 'takes the id of a round, such as 1795000000000-1'),
    }),
    answer: ONE,
    async handle(context, { params }): Promise<QualityOne> {
      const round = await historyOf(context).round(params.id);
      if (round === null) throw new WebError(404, 'there is no such round', 'id');
      return { round: shown(round) };
    },
  }),
  route({
    ...{ method: 'GET', path: '/api/quality/latest', summary: 'The newest round of the last 30 days.' },
    answer: ONE,
    async handle(context): Promise<QualityOne> {
      const history = historyOf(context);
      const newest = (await history.between(...spanOf(context, {}))).rounds.at(-1);
      const round = newest === undefined ? null : await history.round(newest.id);
      return { round: round === null ? null : shown(round) };
    },
  }),
  route({
    ...{ method: 'GET', path: '/api/quality/completeness', summary: 'Completeness and findings over time, by round.' },
    query: z.strictObject({
      type: z.enum(DEPTHS).default('quick'),
      ...SPAN,
      points: wholeNumber(10, 10_000).default(1500),
    }),
    answer: SERIES,
    async handle(context, { query }): Promise<QualitySeries> {
      const { rounds } = await historyOf(context).between(...spanOf(context, query));
      const own = rounds.filter(({ type }) => type === query.type);
      const completeness = own.map((each) => each.completeness);
      const findings = own.map(({ findings: { hint: _, ...counted } }) =>
        Object.values(counted).reduce((sum, each) => sum + each, 0),
      );
      // What stands out is what is missing.
      const missing = completeness.map((each) => (each === null ? null : 100 - each));
      const chosen = keypoints([missing, findings], query.points);
      return {
        ...{ type: query.type, total_count: own.length, times: chosen.map((i) => own[i]!.began) },
        completeness: chosen.map((i) => completeness[i]!),
        findings: chosen.map((i) => findings[i]!),
      };
    },
  }),
];
