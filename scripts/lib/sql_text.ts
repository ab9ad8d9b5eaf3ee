/**
 * Reading SQL text of the ClickHouse dialect without a grammar: tokens, so that a keyword is told from the same letters
 * inside a string, a comment or a quoted name; and the few facts about a statement that a server in front of the engine
 * needs (its kind, its FORMAT, where inline data begins, its parameters).
 */

export type TokenKind = 'word' | 'name' | 'string' | 'number' | 'sign';

export interface Token {
  kind: TokenKind;
  /** Words and signs as written, quoted names and strings with their quotes. */
  text: string;
  /** Offset of the first character. */
  start: number;
  /** Offset after the last character. */
  end: number;
  /** How many brackets are open around it; a bracket itself counts as outside. */
  depth: number;
}

/** A statement that cannot be read or is not allowed; `code` is ClickHouse's. */
export class SqlError extends Error {
  constructor(
    readonly code: number,
    readonly type: string,
    message: string,
  ) {
    super(message);
    this.name = 'SqlError';
  }
}

const WORD = /[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*/y;
const NUMBER = /(?:0[xXbB][\da-fA-F]+|\d[\d_]*(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?)/y;
const BLANK = /[\s\u00a0\ufeff]+/y;
const HEREDOC = /\$(\w*)\$/y;

/**
 * The tokens of `sql` from offset `from`, one by one, so that a caller who stops early never reads the data behind them.
 * @throws SqlError (62) on a string, name or comment that never ends.
 */
export function* tokens(sql: string, from = 0): Generator<Token> {
  let at = from;
  let depth = 0;
  const match = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    return pattern.exec(sql)?.[0];
  };
  while (at < sql.length) {
    const char = sql[at]!;
    const blank = match(BLANK);
    if (blank) {
      at += blank.length;
      continue;
    }
    if (sql.startsWith('--', at) || sql.startsWith('#!', at) || sql.startsWith('# ', at)) {
      const end = sql.indexOf('\n', at);
      at = end < 0 ? sql.length : end + 1;
      continue;
    }
    if (sql.startsWith('/*', at)) {
      at = endOfComment(sql, at);
      continue;
    }
    let kind: TokenKind = 'sign';
    let end = at + 1;
    if (char === "'") {
      kind = 'string';
      end = endOfQuoted(sql, at);
    } else if (char === '`' || char === '"') {
      kind = 'name';
      end = endOfQuoted(sql, at);
    } else if (char === '$' && match(HEREDOC)) {
      const tag = match(HEREDOC)!;
      const close = sql.indexOf(tag, at + tag.length);
      if (close < 0) throw new SqlError(62, 'SYNTAX_ERROR', `Syntax error: the text opened by ${tag} never ends`);
      kind = 'string';
      end = close + tag.length;
    } else if (match(WORD)) {
      kind = 'word';
      end = at + match(WORD)!.length;
    } else if (match(NUMBER)) {
      kind = 'number';
      end = at + match(NUMBER)!.length;
    }
    const text = sql.slice(at, end);
    if (kind === 'sign' && (char === ')' || char === ']' || char === '}')) depth--;
    yield { kind, text, start: at, end, depth };
    if (kind === 'sign' && (char === '(' || char === '[' || char === '{')) depth++;
    at = end;
  }
}

/** ClickHouse comments nest. */
function endOfComment(sql: string, start: number): number {
  let open = 1;
  let at = start + 2;
  while (at < sql.length) {
    if (sql.startsWith('*/', at)) {
      at += 2;
      if (--open === 0) return at;
    } else if (sql.startsWith('/*', at)) {
      open++;
      at += 2;
    } else {
      at++;
    }
  }
  throw new SqlError(62, 'SYNTAX_ERROR', 'Syntax error: a comment never ends');
}

/** Quotes are escaped by a backslash or by doubling. */
function endOfQuoted(sql: string, start: number): number {
  const quote = sql[start]!;
  let at = start + 1;
  while (at < sql.length) {
    if (sql[at] === '\\') at += 2;
    else if (sql[at] === quote && sql[at + 1] === quote) at += 2;
    else if (sql[at] === quote) return at + 1;
    else at++;
  }
  throw new SqlError(62, 'SYNTAX_ERROR', `Syntax error: a text opened by ${quote} never ends`);
}

/** True when the token is this keyword (upper case), not a quoted name or string. */
export function isWord(token: Token | undefined, ...words: string[]): boolean {
  return token?.kind === 'word' && words.includes(token.text.toUpperCase());
}

function isSign(token: Token | undefined, sign: string): boolean {
  return token?.kind === 'sign' && token.text === sign;
}

/** A literal that the engine reads back as exactly `text`. */
export function quoteString(text: string): string {
  return `'${text.replace(/[\\']/g, '\\$&').replace(/\0/g, '\\0')}'`;
}

/** A name in backticks. */
export function quoteName(name: string): string {
  return `\`${name.replace(/[\\`]/g, '\\$&')}\``;
}

/** select: rows by stream; read: a short answer (SHOW, EXPLAIN …); session: SET and USE; change: everything else. */
export type Kind = 'select' | 'read' | 'insert' | 'kill' | 'session' | 'change';

export interface Statement {
  kind: Kind;
  /** One statement without its final semicolon. */
  sql: string;
  tokens: Token[];
  /** It reads system.processes (or asks SHOW PROCESSLIST). */
  readsProcesses: boolean;
}

/**
 * Reads one whole statement.
 * @throws SqlError (62) when it is empty or more than one, (358) on INTO OUTFILE, which only a client may do.
 */
export function readStatement(text: string): Statement {
  const all = [...tokens(text)];
  let sql = text;
  const semicolon = all.findIndex((token) => isSign(token, ';'));
  if (semicolon >= 0) {
    const after = all.slice(semicolon).find((token) => !isSign(token, ';'));
    if (after) {
      throw new SqlError(
        62,
        'SYNTAX_ERROR',
        `Syntax error (Multi-statements are not allowed): failed at position ${all[semicolon]!.start + 1} (end of query): ;`,
      );
    }
    sql = text.slice(0, all[semicolon]!.start);
    all.length = semicolon;
  }
  if (all.length === 0) throw new SqlError(62, 'SYNTAX_ERROR', 'Syntax error: Empty query');
  if (all.some((token, i) => token.depth === 0 && isWord(token, 'INTO') && isWord(all[i + 1], 'OUTFILE'))) {
    throw new SqlError(358, 'INTO_OUTFILE_NOT_ALLOWED', 'INTO OUTFILE is not allowed');
  }
  const kind = kindOf(all);
  const readsProcesses =
    kind === 'select'
      ? processesReads(all).length > 0
      : kind === 'read' && isWord(all[0], 'SHOW') && all.slice(1, 4).some((token) => isWord(token, 'PROCESSLIST'));
  return { kind, sql, tokens: all, readsProcesses };
}

function kindOf(all: Token[]): Kind {
  const first = all.find((token) => !isSign(token, '('));
  if (isWord(first, 'SELECT', 'FROM')) return 'select';
  if (isWord(first, 'WITH')) {
    return all.some((token) => token.depth === 0 && isWord(token, 'INSERT')) ? 'insert' : 'select';
  }
  if (isWord(first, 'INSERT')) return 'insert';
  if (isWord(first, 'KILL') && isWord(all[1], 'QUERY')) return 'kill';
  if (isWord(first, 'SHOW', 'DESCRIBE', 'DESC', 'EXPLAIN', 'EXISTS', 'CHECK')) return 'read';
  if (isWord(first, 'SET', 'USE')) return 'session';
  return 'change';
}

/** True when the statement makes something that would stay behind in the engine's session. */
export function leavesTraceInSession(statement: Statement): boolean {
  return (
    statement.kind === 'session' ||
    (isWord(statement.tokens[0], 'CREATE') && statement.tokens.slice(1, 5).some((t) => isWord(t, 'TEMPORARY', 'TEMP')))
  );
}

export interface FormatClause {
  /** The name as written, or undefined without a FORMAT clause. */
  format: string | undefined;
  /** Where INTO OUTFILE may be put: before FORMAT, or at the end. */
  outputAt: number;
}

/** The FORMAT clause that ends a statement with output. */
export function formatClause(statement: Statement): FormatClause {
  const { tokens: all, sql } = statement;
  for (let i = all.length - 2; i > 0; i--) {
    const token = all[i]!;
    if (token.depth !== 0 || !isWord(token, 'FORMAT')) continue;
    const [before, name, after] = [all[i - 1], all[i + 1]!, all[i + 2]];
    const clause = name.kind === 'word' && (after === undefined || isWord(after, 'SETTINGS'));
    if (clause && !isSign(before, '.') && !isSign(before, ',') && !isWord(before, 'AS')) {
      return { format: name.text, outputAt: token.start };
    }
  }
  return { format: undefined, outputAt: sql.length };
}

export interface InsertText {
  /** `inline`: rows follow in `format`; `values`: VALUES follow as SQL; `select`: INSERT … SELECT, no data. */
  source: 'inline' | 'values' | 'select';
  /** Up to and with the format's name (inline); undefined otherwise. */
  head: string | undefined;
  format: string | undefined;
  /** Offset of the first character of the data (inline only). */
  dataAt: number;
}

/**
 * Reads the head of an INSERT and stops there: behind it may lie megabytes of rows.
 * @returns undefined when the text is no INSERT
 * @throws SqlError (48) for INSERT … SELECT … FROM input(), which the embedded engine would answer with success and no row.
 */
export function readInsert(text: string): InsertText | undefined {
  let index = 0;
  let select = false;
  let previous: Token | undefined;
  let wantsFormat: Token | undefined;
  for (const token of tokens(text)) {
    if (wantsFormat) {
      if (token.kind !== 'word') throw new SqlError(62, 'SYNTAX_ERROR', 'Syntax error: FORMAT without a name');
      return withData(text, token, select);
    }
    if (index++ === 0 && !isWord(token, 'INSERT')) return undefined;
    if (token.depth > 0 || isSign(token, '(')) {
      if (isWord(previous, 'INPUT') && isSign(token, '(') && select) throw inputRefused();
      if (isWord(token, 'INPUT')) previous = token;
      else previous = undefined;
      if (token.depth > 0 && isWord(token, 'SELECT')) select = true;
      continue;
    }
    if (isWord(previous, 'INPUT') && isSign(token, '(') && select) throw inputRefused();
    const clause = !isSign(previous, '.') && !isWord(previous, 'INSERT', 'INTO', 'TABLE', 'FUNCTION');
    if (clause && isWord(token, 'SELECT', 'WITH', 'FROM')) select = true;
    if (clause && !select && isWord(token, 'VALUES')) {
      return { source: 'values', head: undefined, format: 'Values', dataAt: token.end };
    }
    if (clause && !select && isWord(token, 'FORMAT')) wantsFormat = token;
    previous = token;
  }
  if (select) return { source: 'select', head: undefined, format: undefined, dataAt: text.length };
  return { source: 'values', head: undefined, format: undefined, dataAt: text.length };
}

function inputRefused(): SqlError {
  return new SqlError(
    48,
    'NOT_IMPLEMENTED',
    'INSERT ... SELECT ... FROM input() is not supported by the embedded engine: insert the rows as they are, or use a ClickHouse server',
  );
}

/** Data begins after the blanks that follow the format's name, at the latest after its line's end; VALUES keeps its text. */
function withData(text: string, name: Token, select: boolean): InsertText {
  if (select) return { source: 'select', head: undefined, format: undefined, dataAt: text.length };
  if (name.text.toUpperCase() === 'VALUES') {
    return { source: 'values', head: undefined, format: 'Values', dataAt: name.end };
  }
  let at = name.end;
  while (at < text.length && (text[at] === ' ' || text[at] === '\t' || text[at] === '\r')) at++;
  if (text[at] === ';') at++;
  while (at < text.length && (text[at] === ' ' || text[at] === '\t' || text[at] === '\r')) at++;
  if (text[at] === '\n') at++;
  return { source: 'inline', head: text.slice(0, name.end), format: name.text, dataAt: at };
}

/**
 * Puts values in the place of `{name:Type}` as a ClickHouse server does; strings, comments and quoted names stay.
 * @param params the values as an HTTP client writes them: escaped as in TabSeparated, `\N` for NULL.
 * @throws SqlError (456) naming a parameter without a value.
 */
export function substituteParams(sql: string, params: ReadonlyMap<string, string>): string {
  if (!sql.includes('{')) return sql;
  let out = '';
  let copied = 0;
  let skipUntil = 0;
  const all = [...tokens(sql)];
  for (let i = 0; i < all.length; i++) {
    const open = all[i]!;
    if (open.start < skipUntil || !isSign(open, '{')) continue;
    const [name, colon] = [all[i + 1], all[i + 2]];
    if (name?.kind !== 'word' || !isSign(colon, ':')) continue;
    const close = all.slice(i + 3).find((token) => isSign(token, '}') && token.depth === open.depth);
    if (!close) continue;
    const type = sql.slice(colon!.end, close.start).trim();
    const value = params.get(name.text);
    if (value === undefined) {
      throw new SqlError(456, 'UNKNOWN_QUERY_PARAMETER', `Substitution \`${name.text}\` is not set`);
    }
    out += sql.slice(copied, open.start) + paramLiteral(name.text, value, type);
    copied = close.end;
    skipUntil = close.end;
  }
  return out + sql.slice(copied);
}

function paramLiteral(name: string, raw: string, type: string): string {
  if (type === 'Identifier') {
    if (raw === '') throw new SqlError(457, 'BAD_QUERY_PARAMETER', `Query parameter ${name} is an empty identifier`);
    return unescapeTsv(raw).split('.').map(quoteName).join('.');
  }
  const compound = /^(Array|Tuple|Map|Nested|Variant|Dynamic|JSON|Object|Point|Ring|Polygon)\b/.test(type);
  if (raw === '\\N' && !compound) return `CAST(NULL AS ${type})`;
  // Text is no source of a CAST to Map; a reader of TabSeparated takes every type, with line ends and tabs escaped.
  if (/\bMap\b/.test(type)) {
    const line = raw.replace(/[\n\t]/g, (char) => (char === '\n' ? '\\n' : '\\t'));
    return `(SELECT value FROM format(TabSeparated, ${quoteString(`value ${type}`)}, ${quoteString(line)}))`;
  }
  const text = compound ? raw : unescapeTsv(raw);
  // Plain literals where the server puts plain ones: DDL and LIMIT take no function there.
  if (type === 'String') return quoteString(text);
  if (/^U?Int(8|16|32|64)$/.test(type) && /^-?\d{1,15}$/.test(text)) return `_CAST(${text}, '${type}')`;
  return `CAST(${quoteString(text)} AS ${type})`;
}

const TSV_ESCAPES: Record<string, string> = {
  b: '\b',
  f: '\f',
  r: '\r',
  n: '\n',
  t: '\t',
  '0': '\0',
  a: '\x07',
  v: '\v',
};

/** Undoes TabSeparated escapes. */
export function unescapeTsv(text: string): string {
  return text.replace(/\\(x[\da-fA-F]{2}|[\s\S])/g, (_, code: string) =>
    code.length === 3 ? String.fromCharCode(Number.parseInt(code.slice(1), 16)) : (TSV_ESCAPES[code] ?? code),
  );
}

/** Words that may follow a table in FROM; anything else there is its alias. */
const AFTER_TABLE = new Set(
  `WHERE PREWHERE GROUP ORDER LIMIT OFFSET FETCH FORMAT SETTINGS UNION EXCEPT INTERSECT HAVING WINDOW QUALIFY JOIN LEFT RIGHT INNER
  FULL CROSS OUTER ANY ALL ASOF SEMI ANTI GLOBAL PASTE ARRAY ON USING FINAL SAMPLE INTO WITH SELECT`.split(/\s+/),
);

/** One read of a table, as offsets: in FROM with or without a name of its own, or as what a function asks servers for. */
export interface TableRead {
  start: number;
  end: number;
  as: 'table' | 'alias' | 'argument';
}

/** Where the statement reads the table `system.processes`. */
export function processesReads(all: readonly Token[]): TableRead[] {
  const found: TableRead[] = [];
  for (let i = 1; i + 2 < all.length; i++) {
    const plain = (token: Token) => token.text.replace(/[`"]/g, '').toLowerCase();
    if (plain(all[i]!) !== 'system' || !isSign(all[i + 1], '.') || plain(all[i + 2]!) !== 'processes') continue;
    if (all[i]!.kind === 'string' || !(isWord(all[i - 1], 'FROM', 'JOIN') || isSign(all[i - 1], ','))) continue;
    const next = all[i + 3];
    const alias =
      next !== undefined &&
      (next.kind === 'name' || (next.kind === 'word' && !AFTER_TABLE.has(next.text.toUpperCase())));
    const isArgument = isSign(all[i - 1], ',') && isWord(all[i - 4], 'CLUSTER', 'CLUSTERALLREPLICAS');
    found.push({ start: all[i]!.start, end: all[i + 2]!.end, as: isArgument ? 'argument' : alias ? 'alias' : 'table' });
  }
  return found;
}

export interface KillQuery {
  condition: string;
  mode: 'SYNC' | 'ASYNC' | 'TEST';
  format: string | undefined;
}

/**
 * Reads `KILL QUERY WHERE condition [SYNC|ASYNC|TEST] [FORMAT name]`.
 * @throws SqlError (62)
 */
export function readKill(statement: Statement): KillQuery {
  const { tokens: all, sql } = statement;
  const where = all.findIndex((token) => token.depth === 0 && isWord(token, 'WHERE'));
  if (where < 0) throw new SqlError(62, 'SYNTAX_ERROR', 'Syntax error: KILL QUERY needs a WHERE');
  const { format, outputAt } = formatClause(statement);
  let end = outputAt;
  let mode: KillQuery['mode'] = 'ASYNC';
  const last = all.filter((token) => token.start < outputAt).at(-1);
  if (last && last.depth === 0 && isWord(last, 'SYNC', 'ASYNC', 'TEST')) {
    mode = last.text.toUpperCase() as KillQuery['mode'];
    end = last.start;
  }
  return { condition: sql.slice(all[where]!.end, end), mode, format };
}
