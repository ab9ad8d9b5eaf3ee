/** Stands between the store and ClickHouse, and does to its requests what networks and servers do. */
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export type Fault =
  /** Forwarded whole; the answer never reaches the client. */
  | 'answer_lost'
  /** Half of the body is forwarded, then both connections break. */
  | 'body_cut'
  /** The connection breaks before anything is forwarded. */
  | 'refused'
  /** A proxy's own 503, without a word of ClickHouse. */
  | 'unavailable';

export class FaultProxy {
  /** Chooses the fault of an insert; null: forwarded as it is. */
  onInsert: () => Fault | null = () => null;
  faults = 0;
  private readonly server: Server;

  constructor(private readonly target: string) {
    this.server = createServer((incoming, answer) => this.handle(incoming, answer));
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
    incoming.on('end', () => {
      const body = Buffer.concat(chunks);
      const sql = `${new URL(incoming.url!, 'http://x').searchParams.get('query') ?? ''}${body.subarray(0, 400).toString()}`;
      const insert = /^\s*INSERT INTO \S+\.(trades|orderbook_updates)/.test(sql);
      const fault = insert ? this.onInsert() : null;
      if (fault !== null) this.faults += 1;
      if (fault === 'refused') incoming.socket.destroy();
      else if (fault === 'unavailable') answer.writeHead(503).end('no server is here');
      else this.forward(incoming, answer, body, fault);
    });
  }

  private forward(incoming: IncomingMessage, answer: ServerResponse, body: Buffer, fault: Fault | null): void {
    const headers: Record<string, string | string[] | undefined> = {
      ...incoming.headers,
      'content-length': String(body.length),
    };
    delete headers['transfer-encoding'];
    const outgoing = request(`${this.target}${incoming.url}`, { method: incoming.method, headers });
    outgoing.on('error', () => incoming.socket.destroy());
    outgoing.on('response', (response) => {
      if (fault === 'answer_lost') {
        response.resume().on('end', () => incoming.socket.destroy());
        return;
      }
      answer.writeHead(response.statusCode!, response.headers);
      response.pipe(answer);
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
