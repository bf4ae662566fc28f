// Spans of the Vercel AI SDK while calls go to a server: tests/logs/vercel/README.md says how to run it.

import { appendFileSync, readFileSync, realpathSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, url, file, legacy] = process.argv.slice(2);
const require = createRequire(join(resolve(folder), "x.js"));
const load = (name) => import(pathToFileURL(require.resolve(name)).href);
const version = Number(
  JSON.parse(readFileSync(join(folder, "node_modules/ai/package.json"))).version.split(".")[0],
);

const ai = await load("ai");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
const { z } = await load("zod");
const { NodeTracerProvider, BatchSpanProcessor } = await load("@opentelemetry/sdk-trace-node");
const { resourceFromAttributes } = await load("@opentelemetry/resources");
const { JsonTraceSerializer } = await load("@opentelemetry/otlp-transformer");
const { trace } = await load("@opentelemetry/api");

const exporter = {
  export(spans, done) {
    let line = new TextDecoder().decode(JsonTraceSerializer.serializeRequest(spans));
    for (const place of [realpathSync(folder), process.cwd()]) line = line.replaceAll(place, "/app");
    appendFileSync(file, line + "\n");
    done({ code: 0 });
  },
  shutdown: async () => {},
};
const tracing = new NodeTracerProvider({
  resource: resourceFromAttributes({ "service.name": "support" }),
  spanProcessors: [new BatchSpanProcessor(exporter, { scheduledDelayMillis: 100 })],
});
tracing.register();
if (version >= 7) {
  const { OpenTelemetry, LegacyOpenTelemetry } = await load("@ai-sdk/otel");
  ai.registerTelemetry(legacy ? new LegacyOpenTelemetry() : new OpenTelemetry({ runtimeContext: true }));
}

const server = createOpenAICompatible({
  name: "stub",
  baseURL: url,
  apiKey: "none",
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const model = server("gpt-4o-mini");
const people = { sessionId: "session-1", userId: "user-1", tags: ["team:a"] };
const telemetry = (more = {}) =>
  version >= 7
    ? {
        runtimeContext: people,
        telemetry: { includeRuntimeContext: { sessionId: true, userId: true, tags: true }, ...more },
      }
    : { experimental_telemetry: { isEnabled: true, metadata: people, ...more } };
const told = { model, maxRetries: 0, ...telemetry() };

const png =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const image = {
  4: { type: "image", data: png, mimeType: "image/png" },
  5: { type: "media", data: png, mediaType: "image/png" },
  6: { type: "image-data", data: png, mediaType: "image/png" },
  7: { type: "file", data: { type: "data", data: png }, mediaType: "image/png" },
}[version];
const shown = [{ type: "text", text: "a radar picture" }, image];
const city = z.object({ city: z.string() });
const tool = (more) => ({
  weather: ai.tool({
    description: "The weather in a city",
    [version >= 5 ? "inputSchema" : "parameters"]: city,
    execute: async ({ city }) => ({ city, sky: "sunny 晴" }),
    ...more,
  }),
});
const radar =
  version >= 5
    ? { toModelOutput: () => ({ type: "content", value: shown }) }
    : { experimental_toToolResultContent: () => shown };
const twice = version >= 5 ? { stopWhen: ai.stepCountIs(2) } : { maxSteps: 2 };
const system = version >= 7 ? "instructions" : "system";

await ai.generateText({ ...told, ...telemetry({ functionId: "answer" }), prompt: "plain question" });
await ai.generateText({
  ...told,
  model: server("gpt-4o"),
  [system]: "Be brief.",
  messages: [
    { role: "user", content: "first" },
    { role: "assistant", content: "said" },
    { role: "user", content: "second, 請" },
  ],
});
await ai.streamText({ ...told, prompt: "streamed" }).consumeStream();
await ai.generateText({ ...told, ...twice, tools: tool(), prompt: "use a tool" });
await ai.streamText({ ...told, ...twice, tools: tool(), prompt: "stream a tool" }).consumeStream();
await ai.generateText({ ...told, ...twice, tools: tool(radar), prompt: "show the radar" });
await ai.generateObject({ ...told, schema: city, prompt: "which city?" });
for await (const _ of ai.streamObject({ ...told, schema: city, prompt: "stream a city" })
  .partialObjectStream);
const bytes = Buffer.from(png, "base64");
const picture =
  version >= 7 ? { type: "file", mediaType: "image/png", data: bytes } : { type: "image", image: bytes };
await ai.generateText({
  ...told,
  messages: [{ role: "user", content: [{ type: "text", text: "look at" }, picture] }],
});
await ai.generateText({ ...told, prompt: "please fail" }).catch(() => {});
await ai.streamText({ ...told, prompt: "fail to stream", onError: () => {} }).consumeStream();
await ai.streamText({ ...told, prompt: "break the stream", onError: () => {} }).consumeStream();
await ai.generateText({ ...told, ...telemetry({ recordInputs: false }), prompt: "unseen prompt" });
await ai.generateText({ ...told, ...telemetry({ recordOutputs: false }), prompt: "unseen answer" });
const embedder = server[version >= 7 ? "embeddingModel" : "textEmbeddingModel"]("text-embedding-3-small");
await ai.embed({ ...told, model: embedder, value: "x" });
await trace.getTracer("support").startActiveSpan("POST /ask", async (span) => {
  span.setAttributes({ "session.id": "session-2", "user.id": "user-2" });
  const bare = version >= 7 ? {} : { experimental_telemetry: { isEnabled: true } };
  await ai.generateText({ model, ...bare, prompt: "below a span" });
  span.end();
});
await tracing.shutdown();
