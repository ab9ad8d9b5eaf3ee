/** `system.processes` as the server sees it: its own table of running queries, with the engine's figures where it has any. */
import { processesReads, quoteString, readStatement, type Statement } from '../sql_text.ts';
import type { Engine, Lease } from './engine.ts';
import type { Running, RunningQueries } from './running.ts';

/** The columns that KILL QUERY answers with. */
export const KILL_COLUMNS = 'kill_status String, query_id String, user String, query String';

/** Rows as a table expression. */
export function rowsAsTable(columns: string, rows: readonly Record<string, unknown>[]): string {
  const data = rows.map((row) => JSON.stringify(row)).join('\n');
  return `format(JSONEachRow, ${quoteString(columns)}, ${quoteString(data)})`;
}

/** A table expression that stands for system.processes now. */
export async function processRows(queries: RunningQueries, lease: Lease, engine: Engine): Promise<string> {
  const figures = await engine.figures(lease);
  return rowsAsTable(
    engine.processColumns,
    queries.all().map((running) => processRow(running, figures.get(running.tag) ?? {})),
  );
}

function processRow(running: Running, figures: Record<string, unknown>): Record<string, unknown> {
  const address = running.address.includes(':') ? running.address : `::ffff:${running.address}`;
  return {
    ...figures,
    is_initial_query: 1,
    user: running.user,
    query_id: running.queryId,
    address,
    port: running.port,
    initial_user: running.user,
    initial_query_id: running.queryId,
    initial_address: address,
    initial_port: running.port,
    // 2 is HTTP.
    interface: 2,
    client_name: '',
    http_method: running.httpMethod,
    http_user_agent: running.userAgent,
    elapsed: (Date.now() - running.startedAt) / 1000,
    is_cancelled: running.cancelled ? 1 : 0,
    query: running.query,
    current_database: running.database,
  };
}

/** The statement with every read of system.processes replaced. */
export async function withProcesses(
  statement: Statement,
  queries: RunningQueries,
  lease: Lease,
  engine: Engine,
): Promise<Statement> {
  const table = await processRows(queries, lease, engine);
  let sql = statement.sql;
  if (statement.kind === 'read') {
    sql = sql.replace(/^[\s\S]*?PROCESSLIST/i, 'SELECT * FROM system.processes ORDER BY elapsed DESC');
    return withTable(readStatement(sql), table);
  }
  return withTable(statement, table);
}

function withTable(statement: Statement, table: string): Statement {
  let sql = statement.sql;
  for (const { start, end, as } of processesReads(statement.tokens).reverse()) {
    const select = `(SELECT * FROM ${table})`;
    const read = { argument: `view${select}`, alias: select, table: `${select} AS processes` }[as];
    sql = sql.slice(0, start) + read + sql.slice(end);
  }
  return readStatement(sql);
}
