/** `/api/overview`, `/api/coverage`, `/api/gaps`: how the whole pipeline stands, and what is missing. */
import { OVERVIEW_ANSWER } from './overview_answer.ts';
import { answerCoverage, COVERAGE_ANSWER } from './overview_coverage.ts';
import {
  answerGaps,
  answerTimeline,
  GAPS_ANSWER,
  GAPS_QUERY,
  TIMELINE_ANSWER,
  TIMELINE_QUERY,
} from './overview_gaps.ts';
import { Overview } from './overview_look.ts';
import { type Route, route } from './route.ts';

export const OVERVIEW_ROUTES: Route[] = [
  route({
    ...{ method: 'GET', path: '/api/overview', answer: OVERVIEW_ANSWER },
    summary: 'The pipeline now: health, rates and lag of each stage, exchanges, streams, outbox, dead letters, disk.',
    handle: (context) => Overview.of(context).look(),
  }),
  route({
    ...{ method: 'GET', path: '/api/coverage', answer: COVERAGE_ANSWER },
    summary: 'The age of the newest row in hot by exchange and type, and whether that is too old.',
    handle: (context, { gone }) => answerCoverage(context, gone),
  }),
  route({
    ...{ method: 'GET', path: '/api/gaps', query: GAPS_QUERY, answer: GAPS_ANSWER },
    summary: 'Gaps of all symbols that reach into the time, each in its present state, with counts by state.',
    handle: answerGaps,
  }),
  route({
    ...{ method: 'GET', path: '/api/gaps/timeline', query: TIMELINE_QUERY, answer: TIMELINE_ANSWER },
    summary: 'The same as marks of a time line: gaps that begin together are one mark, which tells how many they are.',
    handle: answerTimeline,
  }),
];
