/** What a reader has chosen: language, theme, time zone. Kept by the browser; nothing of it is sent anywhere. */

import { LANGUAGES, THEMES, ZONES } from './choices.ts';

export interface Settings {
  language: (typeof LANGUAGES)[number];
  theme: (typeof THEMES)[number];
  zone: (typeof ZONES)[number];
}

const KEY = 'marketprism';
const listeners = new Set<() => void>();
let current: Settings = read();

function read(): Settings {
  const isChinese = navigator.language.toLowerCase().startsWith('zh');
  const isLight = matchMedia('(prefers-color-scheme: light)').matches;
  const first: Settings = { language: isChinese ? 'zh' : 'en', theme: isLight ? 'light' : 'dark', zone: 'local' };
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? '{}') as Partial<Settings>;
    return {
      language: LANGUAGES.find((each) => each === kept.language) ?? first.language,
      theme: THEMES.find((each) => each === kept.theme) ?? first.theme,
      zone: ZONES.find((each) => each === kept.zone) ?? first.zone,
    };
  } catch {
    // A browser that keeps nothing, or keeps what is none of ours: the page works all the same.
    return first;
  }
}

export function settings(): Settings {
  return current;
}

export function change(changed: Partial<Settings>): void {
  current = { ...current, ...changed };
  try {
    localStorage.setItem(KEY, JSON.stringify(current));
  } catch {
    // Then the choice holds for this page only.
  }
  applySettings();
  for (const listener of listeners) listener();
}

/** @returns what ends it */
export function onChange(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function applySettings(): void {
  const { dataset } = document.documentElement;
  dataset.theme = current.theme;
  document.documentElement.lang = current.language === 'zh' ? 'zh-CN' : 'en';
}

/**
 * Words of a page in both languages: `texts({ price: ['Price', '价格'] }).price` is that of the language chosen now. Read where it is shown,
 * and not kept.
 */
export function texts<K extends string>(
  table: Record<K, readonly [en: string, zh: string]>,
): Readonly<Record<K, string>> {
  const made = {} as Record<K, string>;
  for (const key of Object.keys(table) as K[]) {
    Object.defineProperty(made, key, { enumerable: true, get: () => table[key][current.language === 'zh' ? 1 : 0] });
  }
  return made;
}
