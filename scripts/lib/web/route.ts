/** What a route of the API is: its parameters are validated, its answer is described, and `/api/openapi.json` is made of nothing else. */
import type { Readable } from 'node:stream';
import type { ClickHouseClient } from '@clickhouse/client';
import type { z } from 'zod';
import type { Config } from '../config.ts';
import type { Logger } from '../log.ts';

/** What a route works with. */
export interface WebContext {
  config: Config;
  log: Logger;
  /** Wall clock, ms. */
  clock(): number;
  /** The server with the views, hot and the signals. */
  client: ClickHouseClient;
  /** Ends what is under way when the service stops. */
  stop: AbortSignal;
}

/** An answer that is more than JSON: a stream, another type, another status. */
export class Answer {
  constructor(
    readonly body: Readable | Buffer | string,
    readonly type: string,
    readonly status = 200,
    readonly headers: Readonly<Record<string, string>> = {},
  ) {}
}

/** Ends a request with one clear line as `{"error", "field"?}`. */
export class WebError extends Error {
  /** @param field the parameter that is wrong */
  constructor(
    readonly status: number,
    message: string,
    readonly field?: string,
  ) {
    super(message);
  }
}

/** What a request asks, validated. */
export interface Asked<P, Q> {
  params: P;
  query: Q;
  /** Fires when the client has gone, or the service stops. */
  gone: AbortSignal;
  /** What a request that writes has sent, as `body` of its route makes it. */
  body?: unknown;
  /** Of a request that is passed on: its path and query as they came, and its header. */
  url?: string;
  authorization?: string | undefined;
}

export interface Route<P extends z.ZodType = z.ZodType, Q extends z.ZodType = z.ZodType> {
  /** All but GET write: they need the token. */
  method: 'GET' | 'POST' | 'PUT' | 'DELETE';
  /** As `/api/harvest/:symbol`. */
  path: string;
  /** One line for people. */
  summary: string;
  params?: P;
  /** Strict: a parameter that is not known is refused by name. */
  query?: Q;
  /** JSON that it takes; absent: none. */
  body?: z.ZodType;
  /** The JSON answer; absent: it is described by `types`. */
  answer?: z.ZodType;
  /** Media types besides JSON. */
  types?: readonly string[];
  /** Seconds that the answer may be kept where nothing newer can change it; absent: not at all. */
  maxAge?(asked: { params: z.output<P>; query: z.output<Q> }, now: number): number;
  handle(context: WebContext, asked: Asked<z.output<P>, z.output<Q>>): Promise<object | Answer>;
}

/** Keeps the types of a route's parameters for its handler. */
export function route<P extends z.ZodType, Q extends z.ZodType>(made: Route<P, Q>): Route {
  return made as unknown as Route;
}
