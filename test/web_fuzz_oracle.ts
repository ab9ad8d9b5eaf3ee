/** What no answer may be, whatever was asked. */
import { type Made, type Parameter, type Schema, TIMES } from './web_fuzz.ts';
import type { OpenApi } from './web_harness.ts';
import type { Described } from './web_schemas.ts';

export interface Told {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  /** Null: a stream without an end, of which only the head was read. */
  text: string | null;
}

const SECURITY = [
  'content-security-policy',
  'x-content-type-options',
  'referrer-policy',
  'cross-origin-resource-policy',
];
/** What lies behind the API: texts of queries, the database's words, where files lie, stacks. */
const INSIDE =
  /SELECT |FROM [a-z_]+\.|DB::|__exception__|node_modules|\.ts:\d|\bat (?:async )?\w+ \(|root:x:0|Set-Cookie/;

/** Where what may be away is: none may answer 502 or 503 but by its fault. */
export interface Expected {
  isDatabaseAway: boolean;
  /** Texts that no answer may hold. */
  secrets: readonly string[];
}

/** @returns why an answer is not as it must be, in one line; null: it is */
export function faultOf(described: Described, made: Made, told: Told, expected: Expected): string | null {
  const { status, headers } = told;
  const text = told.text ?? '';
  const absent = SECURITY.find((name) => headers[name] === undefined);
  if (absent !== undefined) return `has no ${absent}`;
  if (headers['cache-control'] === undefined) return 'has no cache-control';
  const secret = expected.secrets.find((each) => text.includes(each));
  if (secret !== undefined) return `tells ${secret}`;
  const inside = INSIDE.exec(text);
  if (inside !== null && !text.startsWith('{"openapi"')) return `tells ${inside[0]}`;
  const isMonitors = made.template.startsWith('/api/monitoring/');
  // Repairs are made one at a time.
  const isBusy = status === 503 && made.template.startsWith('/api/repair/') && /ask again when it is over/.test(text);
  const isAway = (status === 502 && isMonitors) || (status === 503 && expected.isDatabaseAway);
  if (status >= 500 && !isBusy && !isAway) return `is ${status}: ${text.slice(0, 300)}`;
  if (status === 405) return headers.allow === undefined ? 'has no allow' : null;
  if (made.method === 'HEAD' || status === 304) return text === '' ? null : 'has a body';
  // By another path than is meant: what stands in a name may be a slash, or nothing.
  const isMeant = status !== 404 || !/"field":"path"/.test(text);
  if (status >= 400) {
    const fault = errorFault(text, status);
    if (fault !== null) return fault;
    const isOther = described.document.paths[made.template]?.[made.method.toLowerCase()] === undefined;
    if (!isMeant || isOther) return null;
  }
  if (told.text !== null) {
    const fault = described.fault(made.template, made.method, status, String(headers['content-type']), text);
    if (fault !== null) return fault;
  }
  return status === 200 ? acceptedFault(described.document, made) : null;
}

function errorFault(text: string, status: number): string | null {
  const { error, field } = JSON.parse(text) as { error: unknown; field?: unknown };
  if (typeof error !== 'string' || error === '' || /[\r\n]/.test(error) || error.length > 400)
    return `says ${text.slice(0, 500)}`;
  // What is wrong has a name.
  if (field === undefined) return status === 400 ? `names nothing: ${text.slice(0, 300)}` : null;
  return typeof field === 'string' && field !== '' ? null : `names ${text.slice(0, 300)}`;
}

/** What was taken must be what the description lets in. */
function acceptedFault(document: OpenApi, { template, method, query }: Made): string | null {
  const operation = document.paths[template]?.[method.toLowerCase()];
  const parameters = (operation?.parameters ?? []) as unknown as Parameter[];
  const seen = new Set<string>();
  for (const [name, text] of query) {
    const schema = parameters.find((each) => each.in === 'query' && each.name === name)?.schema;
    if (schema === undefined) return `takes ${name}, which is not described`;
    if (seen.has(name)) return `takes ${name} twice`;
    seen.add(name);
    const value = decoded(text);
    if (!fits(schema, value) || (TIMES.has(name) && !isTime(value))) return `takes ${name}=${text}`;
  }
  const msOf = (text: string) => (/^\d+$/.test(text) ? Number(text) : /Z$/i.test(text) ? Date.parse(text) : Number.NaN);
  const [from, to] = ['from', 'to'].map((name) => msOf(decoded(query.find((each) => each[0] === name)?.[1] ?? '')));
  return from! > to! ? 'takes from after to' : null;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    // Then it is what it is.
    return text;
  }
}

function fits(schema: Schema, value: string): boolean {
  const { enum: choices, type, minimum, maximum, pattern, maxLength } = schema;
  if (value === '' || (choices !== undefined && !choices.includes(value))) return false;
  if (type === 'integer' && !(/^\d+$/.test(value) && Number(value) >= minimum! && Number(value) <= maximum!))
    return false;
  if (maxLength !== undefined && value.length > maxLength) return false;
  return pattern === undefined || new RegExp(pattern, 'u').test(value);
}

/** By another way of reading: a day must be the same after it was taken apart. */
function isTime(text: string): boolean {
  if (/^\d+$/.test(text)) return Number(text) < 4_102_444_800_000;
  const match =
    /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.\d{1,3})?)?)?(?:[zZ]|[+ -](\d\d):?(\d\d))?$/.exec(text);
  if (match === null) return false;
  const [year, month, day, hour = 0, minute = 0, second = 0] = match.slice(1, 7).map((each) => Number(each ?? 0));
  const days = new Date(Date.UTC(year!, month!, 0)).getUTCDate();
  const isClock = hour! < 24 || (hour === 24 && minute === 0 && second === 0);
  return month! >= 1 && month! <= 12 && day! >= 1 && day! <= days && isClock && minute! < 60 && second! < 60;
}
