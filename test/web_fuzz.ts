/** Requests that nobody should send, made from the API's own description by number. */
import { ENCODINGS, HOSTS, NASTY, RAW, TYPES, UNKNOWN, WRONG_TOKENS } from './web_fuzz_values.ts';
import type { OpenApi, Operation } from './web_harness.ts';
import { SYMBOLS } from './web_world.ts';

export interface Schema {
  type?: string;
  enum?: string[];
  pattern?: string;
  minimum?: number;
  maximum?: number;
  maxLength?: number;
}
export interface Parameter {
  name: string;
  in: string;
  required: boolean;
  schema: Schema;
}

/** A request, and what of it was given, as it is written. */
export interface Made {
  template: string;
  method: string;
  path: string;
  headers: Record<string, string>;
  body: string | Buffer | null;
  /** Names and values of the query, in their order. */
  query: [name: string, text: string][];
}

/** Times are strings to the description: by these names, or by what is said of them. */
export const TIMES = new Set(['from', 'to', 'at', 'since', 'start_time', 'end_time', 'before', 'after']);

export class RequestMaker {
  private readonly operations: [template: string, method: string, operation: Operation][];
  private readonly cursors: string[] = [];

  /**
   * @param random from 0 on, below 1
   * @param now ms: times are made around it
   */
  constructor(
    document: OpenApi,
    private readonly random: () => number,
    private readonly now: number,
    private readonly token: string,
  ) {
    this.operations = Object.entries(document.paths).flatMap(([template, methods]) =>
      Object.entries(methods).map(
        ([method, operation]) => [template, method, operation] as [string, string, Operation],
      ),
    );
  }

  /** A cursor that a list gave, to be used where it belongs and where not. */
  learn(cursor: string): void {
    if (this.cursors.length < 50) this.cursors.push(cursor);
  }

  next(): Made {
    const { random } = this;
    const [template, method, operation] = this.pick(this.operations);
    const parameters = operation.parameters as unknown as Parameter[];
    const isWrong = () => random() < 0.35;
    const path = template.replace(/\{(\w+)\}/g, (_, name: string) =>
      isWrong() ? this.wrong() : encodeURIComponent(this.right(parameters.find((each) => each.name === name)!)),
    );
    const query = this.queryOf(parameters, isWrong);
    const search = query.map(([name, text]) => `${name}=${text}`).join('&');
    const headers = this.headers();
    const body = operation.requestBody === undefined && random() < 0.95 ? null : this.bodyFor(headers);
    if (method !== 'get' && random() < 0.8) headers.authorization = this.authorization(template);
    const isOther = random() < 0.03;
    return {
      ...{ template, headers, query, body: method === 'get' ? null : body },
      method: isOther ? this.pick(['PUT', 'PATCH', 'OPTIONS', 'HEAD', 'DELETE', 'TRACE']) : method.toUpperCase(),
      path: (search === '' ? path : `${path}?${search}`).slice(0, 15_000),
    };
  }

  private queryOf(parameters: readonly Parameter[], isWrong: () => boolean): [string, string][] {
    const { random } = this;
    const query: [string, string][] = [];
    for (const parameter of parameters) {
      if (parameter.in !== 'query' || random() > (parameter.required ? 0.97 : 0.3)) continue;
      const text = isWrong() ? this.wrong() : encodeURIComponent(this.right(parameter));
      query.push([parameter.name, text]);
      if (random() < 0.02) query.push([parameter.name, text]);
    }
    if (random() < 0.03) query.push([encodeURIComponent(this.pick(UNKNOWN)), this.wrong()]);
    return random() < 0.1 ? query.reverse() : query;
  }

  /** As the description has it; what it leaves open is as people write it. */
  private right({ name, schema }: Parameter): string {
    const { random } = this;
    if (schema.enum !== undefined) return this.pick(schema.enum);
    if (schema.type === 'integer') {
      const { minimum = 0, maximum = 1000 } = schema;
      const near = random() < 0.7 ? Math.min(maximum, 30) : maximum;
      return String(random() < 0.3 ? this.pick([minimum, maximum]) : minimum + Math.floor(random() * (near - minimum)));
    }
    if (name === 'cursor') return this.cursor();
    if (TIMES.has(name)) return this.time();
    if (name === 'types') return this.pick(['trade', 'trade,orderbook', 'gap', 'anomaly']);
    if (name === 'date') return this.pick(['2026-11-29', '2024-02-29', new Date(this.now).toISOString().slice(0, 10)]);
    const named = [
      ...SYMBOLS,
      'BTC',
      'BTC-27DEC26-100000-C',
      'PURR/USDC',
      '@107',
      'ofi_z',
      '1795000000000-1',
      '0123456789abcdef',
    ];
    const { pattern } = schema;
    const fitting = named.filter((each) => pattern === undefined || new RegExp(pattern, 'u').test(each));
    return this.pick(fitting.length === 0 ? named : fitting);
  }

  private wrong(): string {
    return this.random() < 0.15 ? this.pick(RAW) : encodeURIComponent(this.pick(NASTY));
  }

  private time(): string {
    const ms = this.now + Math.floor((this.random() - 0.7) * 7_200_000);
    const iso = new Date(ms).toISOString();
    return this.pick([
      String(ms),
      iso,
      iso.slice(0, 10),
      `${iso.slice(0, 16)}+08:00`,
      iso.slice(0, 19).replace('T', ' '),
      '0',
    ]);
  }

  private cursor(): string {
    const made = (place: unknown) => Buffer.from(JSON.stringify(place)).toString('base64url');
    const place = ['trades', '99999999999999999999', 'binance_spot', 'spot', "1' OR 1=1"];
    const others = [
      made(place),
      made(['trades']),
      made([]),
      made({}),
      made(5),
      'abc',
      'a'.repeat(501),
      made(['trades', 1, 2, 3, 4]),
    ];
    const known = this.cursors.length === 0 ? null : this.pick(this.cursors);
    if (known === null || this.random() < 0.4) return this.pick(others);
    return this.random() < 0.2 ? known.slice(0, -3) : known;
  }

  private headers(): Record<string, string> {
    const { random } = this;
    const headers: Record<string, string> = {};
    if (random() < 0.1) headers['accept-encoding'] = this.pick(ENCODINGS);
    if (random() < 0.04) headers['if-none-match'] = this.pick(['*', 'W/"x"', '"', ',,', 'x'.repeat(2000)]);
    if (random() < 0.03) headers.host = this.pick(HOSTS);
    if (random() < 0.03) headers.range = this.pick(['bytes=0-1', 'bytes=-1', 'bytes=9-1', 'rows=1']);
    if (random() < 0.02) headers['x-http-method-override'] = 'DELETE';
    if (random() < 0.02) headers['content-encoding'] = this.pick(['gzip', 'br', 'nothing']);
    if (random() < 0.02) headers.accept = this.pick(['text/html', '*/*;q=0', 'x']);
    if (random() < 0.02) headers.authorization = this.pick(WRONG_TOKENS);
    return headers;
  }

  /** Each repair that is begun is a process of its own. */
  private authorization(template: string): string {
    const most = template.startsWith('/api/repair/') ? 0.03 : 0.6;
    return this.random() < most ? `Bearer ${this.token}` : this.pick(WRONG_TOKENS);
  }

  private bodyFor(headers: Record<string, string>): string | Buffer {
    const { random } = this;
    const type = random() < 0.85 ? 'application/json' : this.pick(TYPES);
    if (type !== '') headers['content-type'] = type;
    const value = () =>
      this.pick([
        0,
        -1,
        1e308,
        null,
        true,
        '',
        'quick',
        'x'.repeat(5000),
        [],
        {},
        [[]],
        { a: 1 },
        '\u0000',
        this.pick(NASTY),
      ]);
    const members = [
      'type',
      'id',
      'title',
      'text',
      'severity',
      'by',
      'note',
      'restarts',
      'freshness_minutes',
      'constructor',
      'more',
    ];
    const object = Object.fromEntries(
      Array.from({ length: Math.floor(random() * 4) }, () => [this.pick(members), value()]),
    );
    const text = JSON.stringify(object);
    return this.pick([
      ...[
        text,
        text,
        text,
        text,
        text.slice(0, -1),
        `${text}x`,
        `[${text}]`,
        JSON.stringify(value()),
        '',
        ' ',
        '{',
        'nul',
      ],
      ...[
        '{"__proto__":{"type":"deep"}}',
        '{"type":"quick","type":"x"}',
        `{"a":${'['.repeat(9000)}`,
        `{"a":"${'x'.repeat(70_000)}"}`,
      ],
      ...['\ufeff{}', '{"type":"\ud800"}', Buffer.from([0x7b, 0xff, 0xfe, 0x7d]), Buffer.from([0x1f, 0x8b, 8, 0, 0])],
    ]);
  }

  private pick<T>(from: readonly T[]): T {
    return from[Math.floor(this.random() * from.length)]!;
  }
}
