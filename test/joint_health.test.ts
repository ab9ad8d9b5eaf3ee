import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, describe, it } from 'node:test';
import { UsageError } from '../scripts/lib/cli.ts';
import { loadConfig } from '../scripts/lib/config.ts';
import { freePort } from '../scripts/lib/free_port.ts';
import { healthOf } from '../scripts/lib/joint_health.ts';

const servers: Server[] = [];
after(() => Promise.all(servers.map((each) => new Promise((done) => each.close(done)))));

/** Answers /health with a document, as a collector does: 503 when it is unhealthy. */
async function collectorThatSays(document: { status: string }): Promise<number> {
  const server = createServer((_, response) => {
    response.writeHead(document.status === 'unhealthy' ? 503 : 200, { 'content-type': 'application/json' });
    response.end(JSON.stringify(document));
  });
  servers.push(server);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  return (server.address() as AddressInfo).port;
}

const well = { status: 'healthy', error_message: null };
const BINANCE = {
  ...{ status: 'healthy', uptime: 900, boot: 'a1' },
  checks: { broker: well, outbox: well, binance_spot: well },
  received: [{ exchange: 'binance_spot', data_type: 'trade', received: 10 }],
  metrics: { waiting_bytes: 5, pauses: 0 },
  coverage: { trade: { binance_spot: { spot: { 'BTC-USDT': { age: 1 } } } } },
};
const OKX = {
  ...{ status: 'degraded', uptime: 60, boot: 'b2' },
  checks: { broker: well, outbox: { status: 'degraded', error_message: '7 bytes wait' }, okx_spot: well },
  received: [{ exchange: 'okx_spot', data_type: 'trade', received: 20 }],
  metrics: { waiting_bytes: 7, pauses: 1 },
  coverage: { trade: { okx_spot: { spot: { 'BTC-USDT': { age: 2 } } } } },
};

describe('what several collectors say', () => {
  it('is one document: the worse status, added figures, and each exchange once', async () => {
    const ports = [await collectorThatSays(BINANCE), await collectorThatSays(OKX)];
    assert.deepEqual(await healthOf(ports, 5000), {
      ...{ status: 'degraded', uptime: 60, boot: 'a1+b2' },
      checks: { broker: well, outbox: OKX.checks.outbox, binance_spot: well, okx_spot: well },
      received: [...BINANCE.received, ...OKX.received],
      metrics: { waiting_bytes: 12, pauses: 1 },
      coverage: { trade: { ...BINANCE.coverage.trade, ...OKX.coverage.trade } },
    });
  });

  it('tells of one that does not answer, and hides nothing of the others', async () => {
    const away = await freePort();
    const document = (await healthOf([away, await collectorThatSays(BINANCE)], 5000)) as typeof BINANCE & {
      checks: Record<string, object>;
    };
    assert.equal(document.status, 'unhealthy');
    assert.deepEqual(document.checks[`port ${away}`], {
      status: 'unhealthy',
      error_message: 'does not answer',
      response_time: null,
    });
    assert.deepEqual(document.received, BINANCE.received);
  });

  it('is what the only one says, or that it cannot be asked', async () => {
    assert.deepEqual(await healthOf([await collectorThatSays({ status: 'unhealthy' })], 5000), { status: 'unhealthy' });
    await assert.rejects(healthOf([await freePort()], 5000), /fetch failed/);
    await assert.rejects(healthOf([await freePort(), await freePort()], 5000), /fetch failed/);
  });
});

describe('MARKETPRISM_COLLECTOR_PORTS', () => {
  it('is the port of the one collector, unless there are several', () => {
    assert.deepEqual(loadConfig({ HEALTH_CHECK_PORT: '9000' }).collectorPorts, [9000]);
    assert.deepEqual(loadConfig({ MARKETPRISM_COLLECTOR_PORTS: '8101, 8102' }).collectorPorts, [8101, 8102]);
    assert.throws(() => loadConfig({ MARKETPRISM_COLLECTOR_PORTS: '8101,x' }), UsageError);
  });
});
