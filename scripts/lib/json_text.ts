/** Members of a JSON object as they are written, without parsing them: a parsed number may have lost digits. */

/**
 * The text of a member's value at the top level of a JSON object, or null when there is none. The object itself must be
 * sound JSON: parse it first.
 */
export function memberText(json: string, name: string): string | null {
  let at = json.indexOf('{') + 1;
  while (at > 0 && at < json.length) {
    at = skipSpace(json, at);
    if (json[at] !== '"') return null;
    const keyEnd = valueEnd(json, at);
    const key: unknown = JSON.parse(json.slice(at, keyEnd));
    const start = skipSpace(json, skipSpace(json, keyEnd) + 1);
    const end = valueEnd(json, start);
    if (key === name) return json.slice(start, end);
    at = skipSpace(json, end) + 1;
  }
  return null;
}

function skipSpace(json: string, at: number): number {
  let index = at;
  while (index < json.length && json.charCodeAt(index) <= 0x20) index += 1;
  return index;
}

/** Index after the value that begins at `start`. */
function valueEnd(json: string, start: number): number {
  let depth = 0;
  let index = start;
  while (index < json.length) {
    const character = json[index]!;
    if (character === '"') {
      index += 1;
      while (index < json.length && json[index] !== '"') index += json[index] === '\\' ? 2 : 1;
      index += 1;
      if (depth === 0) return index;
      continue;
    }
    if (character === '{' || character === '[') depth += 1;
    else if (character === '}' || character === ']') {
      if (depth === 0) return index;
      depth -= 1;
      if (depth === 0) return index + 1;
    } else if (depth === 0 && (character === ',' || json.charCodeAt(index) <= 0x20)) return index;
    index += 1;
  }
  return index;
}
