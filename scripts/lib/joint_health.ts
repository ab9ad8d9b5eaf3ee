/**
 * What a service says of itself, as one document: also where several processes do a part each (marketprism-collector@EXCHANGE.service,
 * marketprism-store@STREAM.service), which whoever looks at them need not tell apart.
 */

type Json = string | number | boolean | null | Json[] | { [member: string]: Json };
type Document = { [member: string]: Json };

/** From well to worst, as /health says it. */
const STATUSES = ['healthy', 'degraded', 'unhealthy'];

/**
 * /health of a service, or of the collectors or stores on these ports.
 * @throws Error as `fetch` does when none answers. One of several that does not is a check of its own, `port PORT`, that says so
 */
export async function healthOf(ports: readonly number[], timeoutMs: number): Promise<unknown> {
  const asked = await Promise.allSettled(ports.map((port) => healthAt(port, timeoutMs)));
  const answers = asked.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
  if (answers.length === 0) throw (asked[0] as PromiseRejectedResult).reason;
  if (ports.length === 1) return answers[0];
  const away = asked.flatMap((each, place) => (each.status === 'rejected' ? [awayDocument(ports[place]!)] : []));
  return [...answers, ...away].filter(isDocument).reduce(merged);
}

async function healthAt(port: number, timeoutMs: number): Promise<Json> {
  // A service that is unhealthy answers 503 with the same document.
  const answer = await fetch(`http://127.0.0.1:${port}/health`, { signal: AbortSignal.timeout(timeoutMs) });
  return (await answer.json()) as Json;
}

function awayDocument(port: number): Document {
  const check = { status: 'unhealthy', error_message: 'does not answer', response_time: null };
  return { status: 'unhealthy', checks: { [`port ${port}`]: check } };
}

function isDocument(value: Json | undefined): value is Document {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Two documents as one: of a status the worse, of checks with one name the worse, figures added, lists and tables put together. Of what both have and cannot
 * be put together, the first one's.
 */
function merged(one: Document, other: Document): Document {
  const out: Document = { ...other, ...one };
  for (const [member, value] of Object.entries(other)) {
    const own = one[member];
    if (own === undefined) continue;
    if (member === 'status') out[member] = worse(own, value);
    else if (member === 'uptime') out[member] = Math.min(Number(own), Number(value));
    else if (member === 'boot') out[member] = `${String(own)}+${String(value)}`;
    else if (member === 'checks' && isDocument(own) && isDocument(value)) out[member] = checksOf(own, value);
    else out[member] = joined(own, value);
  }
  return out;
}

function checksOf(one: Document, other: Document): Document {
  const out: Document = { ...other, ...one };
  for (const [name, check] of Object.entries(other)) {
    const own = one[name];
    if (!isDocument(own) || !isDocument(check)) continue;
    // Broker and outbox are each one's own: it is the worse one that somebody must look at.
    out[name] = worse(own.status ?? null, check.status ?? null) === own.status ? own : check;
  }
  return out;
}

function joined(one: Json, other: Json): Json {
  if (typeof one === 'number' && typeof other === 'number') return one + other;
  if (Array.isArray(one) && Array.isArray(other)) return [...one, ...other];
  if (!isDocument(one) || !isDocument(other)) return one;
  const out: Document = { ...other, ...one };
  for (const [member, value] of Object.entries(other)) {
    const own = one[member];
    if (own !== undefined) out[member] = joined(own, value);
  }
  return out;
}

function worse(one: Json, other: Json): Json {
  return STATUSES.indexOf(String(other)) > STATUSES.indexOf(String(one)) ? other : one;
}
