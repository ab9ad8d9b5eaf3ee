/** Stands between ClickHouse and those who use it, and does to their requests what networks and servers do. */
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export const CLICKHOUSE_FAULTS = [
  /** Forwarded whole; the answer never reaches the client. */
  'answer_lost',
  /** Forwarded whole; the answer comes when the client has long given up. */
  'answer_late',
  /** Half of the body is forwarded, then both connections break. */
  'body_cut',
  /** The connection breaks before anything is forwarded. */
  'refused',
  /** A proxy's own 503, without a word of ClickHouse. */
  'unavailable',
  /** ClickHouse's own error, which says nothing about the rows. */
  'erring',
] as const;
export type ClickHouseFault = (typeof CLICKHOUSE_FAULTS)[number];

/** Longer than the clients' request timeout. */
const LATE_MS = 45_000;
const STATEMENT_CHARACTERS = 400;
const KEEP_MS = 600_000;

export class ClickHouseProxy {
  /** Chooses the fault of a request; null: forwarded as it is. */
  onRequest: (statement: string) => ClickHouseFault | null = () => null;
  faults = 0;
  private readonly server: Server;

  constructor(private readonly target: string) {
    // Longer than anything that is done to its clients: that a connection was closed meanwhile must not save them.
    const options = { keepAliveTimeout: KEEP_MS };
    this.server = createServer(options, (incoming, answer) => this.handle(incoming, answer));
  }

  async listen(port: number): Promise<void> {
    await new Promise<void>((done) => this.server.listen(port, '127.0.0.1', done));
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((done) => this.server.close(done));
  }

  private handle(incoming: IncomingMessage, answer: ServerResponse): void {
    const chunks: Buffer[] = [];
    incoming.on('data', (chunk: Buffer) => chunks.push(chunk));
    // A client that goes away in the middle of its request has no answer to get.
    incoming.on('error', () => undefined);
    incoming.on('end', () => {
      const body = Buffer.concat(chunks);
      const inUrl = new URL(incoming.url!, 'http://x').searchParams.get('query') ?? '';
      const fault = this.onRequest(`${inUrl}${body.subarray(0, STATEMENT_CHARACTERS).toString()}`);
      if (fault !== null) this.faults += 1;
      if (fault === 'refused') incoming.socket.destroy();
      else if (fault === 'unavailable') answer.writeHead(503).end('no server is here');
      else if (fault === 'erring') {
        answer.writeHead(500, { 'x-clickhouse-exception-code': '241' });
        answer.end('Code: 241. DB::Exception: Memory limit (total) exceeded. (MEMORY_LIMIT_EXCEEDED)');
      } else this.forward(incoming, answer, body, fault);
    });
  }

  private forward(
    incoming: IncomingMessage,
    answer: ServerResponse,
    body: Buffer,
    fault: ClickHouseFault | null,
  ): void {
    const headers: Record<string, string | string[] | undefined> = {
      ...incoming.headers,
      'content-length': String(body.length),
    };
    delete headers['transfer-encoding'];
    const outgoing = request(`${this.target}${incoming.url}`, { method: incoming.method, headers });
    outgoing.on('error', () => incoming.socket.destroy());
    // Who gives up a request gives it up at the server, too.
    if (fault === null) answer.once('close', () => answer.writableFinished || outgoing.destroy());
    outgoing.on('response', (response) => {
      response.on('error', () => incoming.socket.destroy());
      if (fault === 'answer_lost') {
        response.resume().on('end', () => incoming.socket.destroy());
        return;
      }
      const pass = () => {
        answer.writeHead(response.statusCode!, response.headers);
        response.pipe(answer);
      };
      if (fault === 'answer_late') setTimeout(pass, LATE_MS).unref();
      else pass();
    });
    if (fault !== 'body_cut') {
      outgoing.end(body);
      return;
    }
    outgoing.write(body.subarray(0, body.length >> 1), () => {
      outgoing.destroy();
      incoming.socket.destroy();
    });
  }
}
