/** Who holds which lock of the data directory. */
import { resolve } from 'node:path';
import { socketOf } from '../../lock.ts';
import { listenerOnSocket, readProcesses, treeOf } from '../../procfs.ts';
import { heldLocks } from '../locks.ts';
import { type Finding, finding, ok, type Probe } from './finding.ts';

export const locks: Probe = {
  area: 'locks',
  async look({ set: { config, up }, services }) {
    const held = await heldLocks(config.dataDir, config.collectorId);
    const processes = readProcesses();
    const roots = [...services.flatMap(({ pid }) => pid ?? []), ...(up === null ? [] : [up.pid])];
    const ours = new Set(roots.flatMap((pid) => treeOf(processes, pid).map((each) => each.pid)));
    const findings = held.map(({ name, directory, holder }): Finding => {
      if (holder.pid === null) {
        const pid = listenerOnSocket(socketOf(directory, name));
        const what = `held by ${pid === null ? 'a process that this user may not see' : `pid ${pid}`}, which does not answer: it is stopped, or hangs`;
        const remedy =
          pid === null ? 'sudo npx tsx scripts/manage.ts diagnose' : `kill -CONT ${pid} || kill -KILL ${pid}`;
        return finding('error', name, what, remedy);
      }
      const told = `held by pid ${holder.pid} since ${holder.since}`;
      if (ours.has(holder.pid)) return ok(name, told);
      return finding('hint', name, `${told}, which is none of the services of this set`, `ps -fp ${holder.pid}`);
    });
    return findings.length > 0
      ? findings
      : [ok(resolve(config.dataDir), 'no lock is held; none can be left over by a crash')];
  },
};
