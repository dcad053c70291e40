import { texts } from "../texts/en";

export default function ActivityPage() {
  return (
    <div class="page">
      <h1>{texts.activity.title}</h1>
    </div>
  );
}
