/** `/api/openapi.json`: made of the routes and of nothing else, so that it says what they do. */
import { z } from 'zod';
import { VERSION } from '../service.ts';
import type { Route } from './route.ts';

type Schema = Record<string, unknown>;

const ERROR = z.object({
  error: z.string().describe('One line for people.'),
  field: z.string().optional().describe('The parameter that is wrong.'),
});

const FAULTS: Record<number, string> = {
  400: 'A parameter is wrong: `field` names it.',
  401: 'The token is absent or wrong.',
  403: 'No token is set: nothing may be changed.',
  404: 'There is no such thing.',
  405: 'The path has no such method: the header `allow` names those that it has.',
  413: 'The body is too long.',
  415: 'The body is not JSON.',
  421: 'The service is asked by a name that is not its own.',
  500: 'An error of the service, or of what it asks.',
  502: 'What the request is passed on to does not answer.',
  503: 'The database is away, or has too much to do.',
};
/** Of these each route may answer any. */
const READ_FAULTS = [400, 401, 404, 405, 421, 500, 502, 503];
const WRITE_FAULTS = [...READ_FAULTS, 403, 413, 415];

/** The document, OpenAPI 3.1. @throws Error when a path names a parameter that its schema lacks */
export function openApi(routes: readonly Route[]): object {
  const paths: Record<string, Schema> = {};
  for (const route of routes) {
    const path = route.path.replace(/:(\w+)/g, '{$1}');
    const methods = (paths[path] ??= {});
    if (route.method === 'GET') {
      methods.get = operation(route, path);
      // The same without its body.
      continue;
    }
    methods[route.method.toLowerCase()] = operation(route, path);
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'MarketPrism',
      version: VERSION,
      license: { name: 'MIT', identifier: 'MIT' },
      description:
        'Times are ms since the epoch (UTC) where they are numbers; text without a zone is Beijing time for the desk, UTC elsewhere. ' +
        'null: not known. Each GET can be asked with HEAD, too.',
    },
    servers: [{ url: '/' }],
    tags: [...new Set(routes.map(tagOf))].map((name) => ({ name })),
    paths,
    components: {
      schemas: { Error: schemaOf(ERROR, 'output') },
      securitySchemes: { token: { type: 'http', scheme: 'bearer', description: 'MARKETPRISM_API_TOKEN' } },
    },
  };
}

function operation(route: Route, path: string): Schema {
  const writes = route.method !== 'GET';
  const names = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name!);
  const id = path.replace(/^\/api\//, '').replace(/[{}]/g, '');
  return {
    operationId: `${route.method.toLowerCase()}_${id.replace(/\W+/g, '_')}`,
    summary: route.summary,
    tags: [tagOf(route)],
    parameters: [...parametersOf(route.params, 'path', names), ...parametersOf(route.query, 'query', null)],
    ...(route.body === undefined
      ? {}
      : { requestBody: { content: { 'application/json': { schema: schemaOf(route.body, 'input') } } } }),
    responses: {
      200: { description: 'What was asked for.', content: contentOf(route) },
      ...(writes ? {} : { 304: { description: 'It is what If-None-Match says that the client has.' } }),
      ...Object.fromEntries((writes ? WRITE_FAULTS : READ_FAULTS).map((status) => [status, faultOf(status)])),
    },
    ...(writes ? { security: [{ token: [] }] } : {}),
  };
}

function faultOf(status: number): Schema {
  const content = { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } };
  const headers = status === 405 ? { headers: { allow: { schema: { type: 'string' } } } } : {};
  return { description: FAULTS[status], ...headers, content };
}

function contentOf({ answer, types = [] }: Route): Schema {
  const isAny = answer === undefined && types.length === 0;
  const json = answer !== undefined ? schemaOf(answer, 'output') : isAny ? { type: 'object' } : null;
  // What is no JSON is bytes: OpenAPI 3.1 has no schema for it.
  return {
    ...(json === null ? {} : { 'application/json': { schema: json } }),
    ...Object.fromEntries(types.map((type) => [type, {}])),
  };
}

/** @param names that a path has; null: those of the schema */
function parametersOf(schema: z.ZodType | undefined, place: 'path' | 'query', names: readonly string[] | null) {
  const { properties = {}, required = [] } = (schema === undefined ? {} : schemaOf(schema, 'input')) as {
    properties?: Record<string, Schema>;
    required?: string[];
  };
  const made = wholeNumbersOf(schema);
  const absent = names?.find((name) => !(name in properties));
  if (absent !== undefined) throw new Error(`a path has :${absent}, of which its route has no schema`);
  return Object.entries(properties).map(([name, { description, ...type }]) => ({
    ...{ name, in: place, required: place === 'path' || required.includes(name) },
    ...(description === undefined ? {} : { description }),
    schema: { ...type, ...made.get(name) },
  }));
}

/** What a parameter that is a whole number may be. */
interface Range {
  minimum?: number;
  maximum?: number;
  default?: unknown;
}
export type WholeNumbers = ReadonlyMap<string, Range>;

/** Parameters that are whole numbers. What comes of them may be bounded more narrowly than what is written. */
export function wholeNumbersOf(schema: z.ZodType | undefined): WholeNumbers {
  if (schema === undefined) return new Map();
  const of = (io: 'input' | 'output') =>
    Object.entries((schemaOf(schema, io).properties ?? {}) as Record<string, Range>);
  const made = new Map(of('output'));
  return new Map(
    of('input').flatMap(([name, { type, minimum, maximum }]: [string, Range & { type?: string }]) => {
      if (type !== 'integer') return [];
      const own = made.get(name) ?? {};
      const range = {
        minimum: Math.max(minimum ?? Number.MIN_SAFE_INTEGER, own.minimum ?? Number.MIN_SAFE_INTEGER),
        maximum: Math.min(maximum ?? Number.MAX_SAFE_INTEGER, own.maximum ?? Number.MAX_SAFE_INTEGER),
      };
      return [[name, own.default === undefined ? range : { ...range, default: own.default }]];
    }),
  );
}

function schemaOf(schema: z.ZodType, io: 'input' | 'output'): Schema {
  const { $schema, ...made } = z.toJSONSchema(schema, { io, unrepresentable: 'any', reused: 'inline' }) as Schema;
  return made;
}

/** `/api/market/trades` is of `market`. */
function tagOf({ path }: Route): string {
  return path.split('/')[2] ?? 'api';
}
