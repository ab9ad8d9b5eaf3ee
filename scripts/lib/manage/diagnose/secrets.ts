/** Names of variables whose values are never shown. */
export function isSecret(name: string): boolean {
  return /PASS|SECRET|TOKEN|KEY|WEBHOOK|LARKBOT|SMTP/.test(name);
}
