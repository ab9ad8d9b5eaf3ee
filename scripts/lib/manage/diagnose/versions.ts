/** Which versions of what run here. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { findNatsServer } from '../../broker.ts';
import { coldServer, createClickHouse, hotServer, selectText } from '../../clickhouse.ts';
import { oldBrokerWarning } from '../../jetstream.ts';
import { NEWEST_SCHEMA, schemaVersion } from '../../migrations.ts';
import { VERSION } from '../../service.ts';
import { lookingContext } from '../health.ts';
import { type DiagnoseContext, type Finding, finding, ok, type Probe } from './finding.ts';

const ROOT = join(import.meta.dirname, '..', '..', '..', '..');
/** As `engines` in package.json has it: import.meta.dirname and require of ES modules. */
const LEAST_NODE = [20, 18, 1];
const ANSWER_WITHIN_MS = 5000;

export const versions: Probe = {
  area: 'versions',
  async look(context) {
    return [
      ok('marketprism', VERSION),
      nodeFinding(process.versions.node),
      await brokerFinding(context),
      await databaseFinding(context),
      ...(await schemaFindings(context)),
      await systemdFinding(context),
    ];
  },
};

export function nodeFinding(version: string): Finding {
  const parts = version.split('.').map(Number);
  const difference = LEAST_NODE.map((wanted, i) => parts[i]! - wanted).find((each) => each !== 0) ?? 0;
  if (difference >= 0) return ok('node', version);
  return finding(
    'error',
    'node',
    `${version} is older than ${LEAST_NODE.join('.')}`,
    'install Node 20.18.1 or newer: https://nodejs.org',
  );
}

/** The program that is installed here is the one that runs, unless the broker is elsewhere. */
async function brokerFinding({ run }: DiagnoseContext): Promise<Finding> {
  const program = findNatsServer();
  if (program === null)
    return finding(
      'hint',
      'nats-server',
      'is not installed here: a broker elsewhere is needed',
      'sudo apt-get install nats-server',
    );
  const { stdout, stderr } = await run(program, ['--version'], ANSWER_WITHIN_MS);
  const version = /v(\d+\.\d+\.\d+\S*)/.exec(stdout)?.[1];
  if (version === undefined)
    return finding('unchecked', 'nats-server', `${program} does not tell its version: ${stderr.trim()}`, null);
  const warning = oldBrokerWarning(version);
  if (warning === null) return ok('nats-server', version);
  return finding(
    'warning',
    'nats-server',
    warning,
    'install a newer nats-server (https://nats.io/download), then npx tsx scripts/manage.ts restart nats-server',
  );
}

async function databaseFinding({ set: { config } }: DiagnoseContext): Promise<Finding> {
  const manifest = join(ROOT, 'node_modules', 'chdb', 'package.json');
  const chdb = existsSync(manifest)
    ? (JSON.parse(readFileSync(manifest, 'utf8')) as { version: string }).version
    : null;
  const embedded = chdb === null ? 'chdb is not installed' : `chdb ${chdb}`;
  const looking = lookingContext(config);
  try {
    const [[version] = []] = await selectText(looking.client, 'SELECT version()');
    return ok('clickhouse', `${version} (${embedded})`);
  } catch (error) {
    const what = `does not answer: ${(error as Error).message.split('\n')[0] || (error as NodeJS.ErrnoException).code} (${embedded})`;
    return finding('unchecked', 'clickhouse', what, 'npx tsx scripts/manage.ts start');
  } finally {
    await looking.close();
  }
}

async function schemaFindings({ set: { config } }: DiagnoseContext): Promise<Finding[]> {
  const places = [
    [hotServer(config), config.hotDatabase],
    [coldServer(config), config.coldDatabase],
    [hotServer(config), config.signalsDatabase],
  ] as const;
  const findings: Finding[] = [];
  for (const [server, database] of places) {
    const client = createClickHouse(server, 'marketprism-manage', ANSWER_WITHIN_MS);
    try {
      findings.push(schemaFinding(database, await schemaVersion(client, database)));
    } catch (error) {
      const reason = (error as Error).message.split('\n')[0] || (error as NodeJS.ErrnoException).code;
      findings.push(finding('unchecked', database, `does not answer: ${reason}`, null));
    } finally {
      await client.close();
    }
  }
  return findings;
}

/** @param version that a database has; 0: none */
export function schemaFinding(database: string, version: number): Finding {
  if (version === NEWEST_SCHEMA) return ok(database, `schema version ${version}`);
  const what = version === 0 ? 'no schema yet' : `schema version ${version}, and this program makes ${NEWEST_SCHEMA}`;
  return version < NEWEST_SCHEMA
    ? finding('hint', database, `${what}: the next start brings it up`, 'npx tsx scripts/manage.ts init')
    : finding('error', database, `${what}: its services refuse to start`, 'start the newer program');
}

async function systemdFinding({ run, isBooted }: DiagnoseContext): Promise<Finding> {
  if (!isBooted) return ok('systemd', 'does not run this machine: npm start keeps the services running');
  const { code, stdout, stderr } = await run('systemctl', ['--version'], ANSWER_WITHIN_MS);
  if (code !== 0) return finding('unchecked', 'systemd', `systemctl --version: ${stderr.trim()}`, null);
  return ok('systemd', stdout.split('\n')[0]!);
}
