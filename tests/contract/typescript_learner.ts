// A learner on the client that hey-api made (the folder `client`).
//
//     node typescript_learner.js CONTROLLER ENROLMENT_TOKEN
import { decode, encode } from "@msgpack/msgpack";
import { client } from "./client/client.gen";
import { getModel, join, leave, putResult, putScores, task } from "./client/sdk.gen";

type Tensors = { tensors: { data: Uint8Array }[] };

function weights(values: number[], more: object = {}): Blob {
  const data = new Uint8Array(new Float32Array(values).buffer);
  const document = encode({ ...more, tensors: [{ name: "w", dtype: "float32", shape: [2], data }] });
  return new Blob([new Uint8Array(document)]);
}

async function main(baseUrl: string, enrolment: string): Promise<void> {
  let token = enrolment;
  client.setConfig({ baseUrl, auth: () => token });
  const enrolled = await join({ body: { name: "generated" }, throwOnError: true });
  token = enrolled.data.token!;
  const learner_id = enrolled.data.id;
  let kind = "";
  while (kind !== "evaluate") {
    const { data: given, response } = await task({ path: { learner_id }, query: { wait: 5 }, throwOnError: true });
    if (response.status === 204 || !given) continue;
    kind = given.kind;
    let values = [0, 0];
    if (given.model) {
      const { data } = await getModel({ path: { digest: given.model.digest }, throwOnError: true });
      const [tensor] = (decode(await (data as Blob).arrayBuffer()) as Tensors).tensors;
      values = [...new Float32Array(tensor.data.slice().buffer)];
    }
    const path = { task_id: given.id };
    const update = weights(values.map((value) => value + 1.5), { metadata: { num_training_examples: 10 } });
    const { data: receipt } =
      kind === "evaluate"
        ? await putScores({ path, body: { metrics: { first: values[0] } }, throwOnError: true })
        : await putResult({ path, body: kind === "train" ? update : weights(values), throwOnError: true });
    console.log(kind, receipt.kind, receipt.round);
  }
  await leave({ path: { learner_id }, throwOnError: true });
}

main(process.argv[2], process.argv[3]).catch((error) => {
  console.error(error);
  process.exit(1);
});
