/** `manage.ts broker-config FILE`: what the unit of the broker runs before it starts, so that mode, port and sizes are those of the services. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { brokerConfig } from '../broker.ts';
import { OperatorError, UsageError } from '../cli.ts';
import { loadConfig } from '../config.ts';
import { type Command, commandFlags } from '../manage/command.ts';
import { streamDefinitions } from '../streams.ts';
import { streamBudget } from '../system.ts';

const HELP = {
  name: 'broker-config',
  takes: 'FILE',
  what: 'writes the configuration of the own NATS server (the unit of it does)',
};

export const brokerConfigCommand: Command = {
  ...HELP,
  async run(argv) {
    const { positionals } = commandFlags(HELP, {}, argv);
    const [file, ...more] = positionals;
    if (file === undefined || more.length > 0) throw new UsageError('broker-config takes one FILE');
    const config = loadConfig();
    const { hostname, port } = new URL(config.natsUrl.split(',')[0]!);
    if (!['127.0.0.1', 'localhost'].includes(hostname))
      throw new OperatorError(`the broker at ${hostname} is none of this machine's: it is not started here`);
    const directory = resolve(config.dataDir, 'nats');
    mkdirSync(directory, { recursive: true });
    const definitions = streamDefinitions({ streamMaxBytes: config.streamMaxBytes ?? streamBudget(config.dataDir) });
    const streamBytes = definitions.reduce((sum, each) => sum + each.maxBytes, 0);
    writeFileSync(file, brokerConfig(directory, Number(port || 4222), streamBytes));
    return 0;
  },
};
