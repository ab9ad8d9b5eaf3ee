/** Answers held against /api/openapi.json, whose schemas are of JSON Schema 2020-12. */
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import type { OpenApi, Operation } from './web_harness.ts';

export class Described {
  private readonly ajv = new Ajv2020({ strict: false, validateFormats: false });
  private readonly validators = new Map<string, ValidateFunction>();

  constructor(readonly document: OpenApi) {}

  /** @returns what is not as it is described, in one line; null: nothing */
  fault(template: string, method: string, status: number, type: string | null, text: string): string | null {
    const key = `${method} ${template} ${status}`;
    const operation: Operation | undefined = this.document.paths[template]?.[method.toLowerCase()];
    const content = operation?.responses[status]?.content;
    if (operation === undefined || content === undefined) return `${key} is not described`;
    const media = (type ?? '').split(';')[0]!.trim();
    const schema = content[media];
    if (schema === undefined) return `${key} is of ${type}, which is not described`;
    if (media !== 'application/json' || schema.schema === undefined) return null;
    const isError = '$ref' in schema.schema;
    let validate = this.validators.get(key);
    if (validate === undefined) {
      validate = this.ajv.compile(isError ? this.document.components.schemas.Error : schema.schema);
      this.validators.set(key, validate);
    }
    const body: unknown = JSON.parse(text);
    return validate(body) ? null : `${key}: ${JSON.stringify(validate.errors).slice(0, 400)}: ${text.slice(0, 300)}`;
  }
}
