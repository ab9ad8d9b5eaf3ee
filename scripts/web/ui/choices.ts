/** What a reader can choose between. */
export const LANGUAGES = ['en', 'zh'] as const;
export const THEMES = ['dark', 'light'] as const;
export const ZONES = ['local', 'beijing'] as const;
