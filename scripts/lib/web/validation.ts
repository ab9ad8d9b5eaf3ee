/** What a request asks, held against its route: what is wrong is refused by its name. */
import { z } from 'zod';
import type { WholeNumbers } from './openapi.ts';
import { type Route, WebError } from './route.ts';

/** Those of the path. @throws WebError 400 */
export function paramsOf({ params }: Route, given: unknown): unknown {
  return parsed(params, given, 'name');
}

/** @param numbers of the query that are whole @throws WebError 400 */
export function queryOf({ query: schema }: Route, numbers: WholeNumbers, given: unknown): unknown {
  const object = (given ?? {}) as Record<string, unknown>;
  for (const [name, range] of numbers) {
    const text = object[name];
    // What JavaScript takes for a number besides (0x10, 1e3, blanks) is none to people.
    if (typeof text === 'string' && text !== '' && !/^\d{1,15}$/.test(text))
      throw new WebError(400, `takes a whole number from ${range.minimum} to ${range.maximum}`, name);
  }
  const query = parsed(schema, given, 'parameter') as Record<string, unknown>;
  const { from, to } = query;
  if (typeof from === 'number' && typeof to === 'number' && from > to)
    throw new WebError(400, '`from` is after `to`', 'from');
  return query;
}

/**
 * @param given absent where none was sent; whatever is sent to a route that takes none was meant to change what it does
 * @returns undefined where the route takes none
 * @throws WebError 400
 */
export function bodyOf({ body: schema }: Route, given: unknown = {}): unknown {
  if (typeof given !== 'object' || given === null || Array.isArray(given))
    throw new WebError(400, 'takes a JSON object', 'body');
  const body = parsed(schema, given, 'member');
  return schema === undefined ? undefined : body;
}

/** @throws WebError 400 naming the first one that is wrong */
function parsed(schema: z.ZodType | undefined, given: unknown, what: string): unknown {
  const object = (given ?? {}) as Record<string, unknown>;
  const known = schema === undefined ? [] : schema instanceof z.ZodObject ? Object.keys(schema.shape) : null;
  const unknown = known === null ? undefined : Object.keys(object).find((name) => !known.includes(name));
  if (unknown !== undefined) throw new WebError(400, `no such ${what}`, unknown);
  if (what === 'parameter') {
    for (const [name, value] of Object.entries(object)) {
      if (typeof value !== 'string') throw new WebError(400, 'is given more than once', name);
      if (value === '') throw new WebError(400, 'is empty: leave it out', name);
    }
  }
  if (schema === undefined) return {};
  const result = schema.safeParse({ ...object });
  if (result.success) return result.data;
  const issue = result.error.issues[0]!;
  const field = issue.path.join('.') || (issue.code === 'unrecognized_keys' ? issue.keys[0] : undefined);
  throw new WebError(400, issue.message, field ?? what);
}
