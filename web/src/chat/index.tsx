import { texts } from "../texts/en";

export default function ChatPage() {
  return (
    <div class="page">
      <h1>{texts.chat.title}</h1>
    </div>
  );
}
