/** Names of services as people write them. */
import { UsageError } from '../cli.ts';
import { SERVICES } from '../services.ts';

/**
 * Services by their own names or by those of their units, each once.
 * @param known names that there are here
 * @throws UsageError naming one that is not known
 */
export function namesFor(given: readonly string[], known: readonly string[]): string[] {
  const found = given.map((word) => {
    const plain = word.replace(/^marketprism-/, '').replace(/\.(service|ts)$/, '');
    const name = SERVICES.find(({ unit }) => unit === plain)?.name ?? plain;
    if (!known.includes(name))
      throw new UsageError(`there is no service "${word}" here; there are: ${known.join(', ')}`);
    return name;
  });
  return [...new Set(found)];
}
