/** What went wrong as one line for whoever asked: never a query's text, which may hold what was asked by others or where things lie. */
import { ClickHouseError } from '@clickhouse/client';
import { WebError } from './route.ts';

export interface Fault {
  status: number;
  body: { error: string; field?: string };
  /** Ours, and to be logged. */
  isOurs: boolean;
}

/** Codes with which a server is not there, or went away. */
const AWAY = /^(ECONN(REFUSED|RESET|ABORTED)|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|ETIMEDOUT|EPIPE)$/;
/** How the client says it without a code. */
const AWAY_TEXT = /^(Timeout error\.|socket hang up)/;
/** What passes: asked again later, the same query may be answered. */
const PASSING: Record<string, string> = {
  159: 'the query takes too long: ask for less',
  160: 'the query takes too long: ask for less',
  202: 'the database has too much to do: ask again',
  241: 'the query needs too much memory: ask for less',
  242: 'the database shuts down: ask again',
  373: 'the database has too much to do: ask again',
  439: 'the database has too much to do: ask again',
};
const NO_TABLES = new Set(['60', '81']);
const REFUSED = new Set(['192', '193', '194', '497', '516']);

export function faultOf(error: unknown, database: string): Fault {
  if (error instanceof WebError) {
    const { status, message, field } = error;
    return { status, body: { error: message, ...(field === undefined ? {} : { field }) }, isOurs: status === 500 };
  }
  if (error instanceof ClickHouseError) return ofDatabase(error);
  const { code, message, statusCode } = error as Error & { code?: string; statusCode?: number };
  if (AWAY.test(code ?? '') || AWAY_TEXT.test(message))
    return fault(503, `the database at ${hostOf(database)} does not answer: ${code ?? 'it takes too long'}`, true);
  if (statusCode !== undefined && statusCode < 500) {
    const isPath = code === 'FST_ERR_BAD_URL';
    // Its message would say the path again, whatever stands in it.
    const text = isPath ? 'the path is not written as a path is: a % without its two digits?' : message.split('\n')[0]!;
    return { status: statusCode, body: { error: text, field: isPath ? 'path' : 'body' }, isOurs: false };
  }
  return fault(500, 'an error of this service: its log has it', true);
}

function ofDatabase({ code, type }: ClickHouseError): Fault {
  const name = `${type ?? 'error'} (${code})`;
  const passing = PASSING[code];
  if (passing !== undefined) return fault(503, `${passing}: ${name}`, true);
  if (NO_TABLES.has(code)) return fault(500, `the database has no such table, manage.ts init makes it: ${name}`, true);
  if (REFUSED.has(code)) return fault(500, `the database refuses our user: ${name}`, true);
  return fault(500, `the database answers ${name}`, true);
}

function fault(status: number, error: string, isOurs: boolean): Fault {
  return { status, body: { error }, isOurs };
}

/** Without a password that may stand in the address. */
function hostOf(url: string): string {
  return URL.canParse(url) ? new URL(url).host : 'an unknown address';
}
