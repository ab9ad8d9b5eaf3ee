/** What the kernel lets the services have: files, memory, control groups. */
import { readdirSync, readFileSync } from 'node:fs';
import { bytesOf } from '../status_view.ts';
import { unitOf } from '../systemd.ts';
import { type Finding, finding, ok, type Probe } from './finding.ts';

/** More of a limit than this is near it. */
const NEAR = 0.8;
const MIB = 2 ** 20;
/** With less the next large query ends in the kernel's killing something. */
const LITTLE_MEMORY = 512 * MIB;
const TOO_LITTLE_MEMORY = 256 * MIB;
const CGROUPS = '/sys/fs/cgroup';

export const limits: Probe = {
  area: 'limits',
  async look({ services }) {
    const running = services.flatMap(({ name, pid }) => (pid === null ? [] : [{ name, pid }]));
    const files = running.map(({ name, pid }) => filesFinding(name, pid));
    const groups = running.flatMap(({ name, pid }) => groupFinding(name, pid));
    const near = [...files, ...groups].filter(({ severity }) => severity !== 'ok');
    const most = `${running.length} services, none near its limit of open files`;
    return [
      memoryFinding(readFileSync('/proc/meminfo', 'utf8')),
      ...(near.length > 0
        ? near
        : [running.length === 0 ? ok('services', 'none runs: no limits to look at') : ok('services', most)]),
    ];
  },
};

/** @param meminfo of /proc/meminfo */
export function memoryFinding(meminfo: string): Finding {
  const bytes = (name: string) => {
    const found = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(meminfo)?.[1];
    return found === undefined ? null : Number(found) * 1024;
  };
  const [total, available, swap] = [bytes('MemTotal'), bytes('MemAvailable'), bytes('SwapTotal')];
  if (total === null || available === null) return finding('unchecked', 'memory', '/proc/meminfo does not tell', null);
  const told = `${bytesOf(available)} of ${bytesOf(total)} available, swap ${bytesOf(swap)}`;
  if (available >= LITTLE_MEMORY) return ok('memory', told);
  return finding(
    available < TOO_LITTLE_MEMORY ? 'error' : 'warning',
    'memory',
    told,
    'ps -eo pid,rss,comm --sort=-rss | head',
  );
}

function filesFinding(name: string, pid: number): Finding {
  try {
    const soft = /^Max open files\s+(\d+|unlimited)/m.exec(readFileSync(`/proc/${pid}/limits`, 'utf8'))?.[1];
    const open = readdirSync(`/proc/${pid}/fd`).length;
    const told = `${open} of ${soft} open files`;
    if (soft === undefined) return finding('unchecked', name, 'its limit of open files is not known', null);
    if (soft === 'unlimited' || open < NEAR * Number(soft)) return ok(name, told);
    return finding('warning', name, told, `sudo prlimit --pid ${pid} --nofile=65536:65536`);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH') return ok(name, 'ended meanwhile');
    if (code !== 'EACCES') throw error;
    return finding(
      'unchecked',
      name,
      'its open files are not for this user to see',
      'sudo npx tsx scripts/manage.ts diagnose',
    );
  }
}

/** Of a unit's control group (version 2): whether the kernel has killed anything in it. */
function groupFinding(name: string, pid: number): Finding[] {
  const group = textOf(`/proc/${pid}/cgroup`)?.match(/^0::(.+)$/m)?.[1];
  if (group === undefined || group === '/') return [];
  const [most, current] = [
    textOf(`${CGROUPS}${group}/memory.max`)?.trim(),
    textOf(`${CGROUPS}${group}/memory.current`)?.trim(),
  ];
  const kills = Number(/^oom_kill (\d+)$/m.exec(textOf(`${CGROUPS}${group}/memory.events`) ?? '')?.[1] ?? 0);
  const told = `${bytesOf(Number(current))} of ${bytesOf(Number(most))} memory`;
  const isBound = most !== undefined && most !== 'max' && current !== undefined;
  if (kills > 0)
    return [
      finding(
        'warning',
        name,
        `the kernel killed processes ${kills} times for want of memory${isBound ? ` (${told})` : ''}`,
        `journalctl -k --grep oom`,
      ),
    ];
  if (!isBound || Number(current) < NEAR * Number(most)) return [];
  return [finding('warning', name, told, `systemctl show ${unitOf(name)} -p MemoryHigh,MemoryMax`)];
}

/** @returns null where there is no such file, or it is not for this user to read */
function textOf(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (['ENOENT', 'ESRCH', 'EACCES'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
}
