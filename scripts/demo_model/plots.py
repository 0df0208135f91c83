"""Plots of the written stories: each is a list of steps, each step a list of sentences that may stand there.

{hero}, {friend}: "the fox" or a name; {a_hero}: "a shy fox named Lily"; {he} {him} {his}, {fhe} {fhim} {fhis};
{at}: "in the forest"; {thing}, {food}: bare nouns; {color}: of the thing; {mood}: how the hero feels at first.
A capital letter in the key makes one in the text.
"""

OPENINGS = [
    "Once upon a time, there was {a_hero} who lived {at}.", "There was once {a_hero}. {He} lived {at}.",
    "{A_hero} lived {at}.", "Once there was {a_hero} who loved to {verb}.", "Far away, {at}, lived {a_hero}.",
    "One day, {a_hero} was {at}.", "It was a {weather} day, and {a_hero} was {at}.",
    "One {weather} morning, {a_hero} woke up {at}.", "Long ago, {a_hero} lived {at}.",
    "{A_hero} liked to {verb} {at}.", "Not far from here, {at}, there lived {a_hero}.",
]

ENDINGS = [
    "From that day on, {hero} and {friend} were best friends.", "{Hero} smiled all the way home.",
    "That night {hero} slept well and had sweet dreams.", "{Hero} was happy, and so was {friend}.",
    "It was the best day of {his} life.", "And they lived happily ever after.", "{Hero} never forgot that day.",
    "After that, they met {at} every day.", "{Hero} hugged {friend} and said thank you.",
    "Then they went home and ate {food} together.", "\"What a day!\" said {hero}.", "{Hero} and {friend} laughed and laughed.",
    "Everyone was happy.", "In the evening they sat together and looked at the stars.",
    "{Hero} knew that {friend} was a true friend.",
]

PLOTS = [
    # A thing is lost and found.
    [["{He} had a {color} {thing}, and {he} took it everywhere.", "{His} favorite thing was a {color} {thing}.", "{Hero} had a {color} {thing} that {he} loved very much."],
     ["One day the {thing} was gone.", "One morning {he} could not find the {thing}.", "But one day {he} lost the {thing}."],
     ["{He} looked under the bed and behind the door, but it was not there.", "{He} looked everywhere, but {he} could not find it.", "{Hero} was very sad and began to cry."],
     ["{A_friend} came by and asked, \"What is wrong?\"", "Then {he} met {a_friend}. \"Can you help me?\" asked {hero}.", "{A_friend} saw that {hero} was sad. \"I will help you,\" {fhe} said."],
     ["They looked for it together.", "Together they looked behind every tree and every stone.", "They walked up and down and looked at everything."],
     ["At last {friend} found the {thing} under a bush.", "In the end the {thing} was behind a big stone.", "Then {friend} saw something {color} in the grass. It was the {thing}!"],
     ["\"Thank you so much!\" said {hero}.", "{Hero} jumped for joy.", "{Hero} held the {thing} tight and smiled."]],
    # Lonely, finds a friend.
    [["{He} was lonely, because {he} had nobody to play with.", "{He} felt lonely and wished for a friend.", "All day long {he} played alone."],
     ["One day {he} saw {a_friend} who was sitting all alone.", "One afternoon {a_friend} came along.", "Then {he} heard somebody cry. It was {a_friend}."],
     ["\"Hello,\" said {hero}. \"Do you want to play with me?\"", "{Hero} was shy, but {he} said, \"Hello! What is your name?\"", "{Hero} asked, \"Are you lonely too?\""],
     ["\"Yes, please!\" said {friend}.", "{Friend} smiled and said yes.", "\"I would love to have a friend,\" said {friend}."],
     ["They played with a {color} {thing} until it was dark.", "{Hero} showed {friend} {his} {color} {thing}, and they played all day.", "They ate {food} and told each other stories."],
     ["Now {hero} was not lonely any more.", "{Hero} was so glad that {he} had said hello.", "\"Will you come back tomorrow?\" asked {hero}. \"Of course,\" said {friend}."]],
    # A fear is overcome.
    [["{He} was afraid of {fear}.", "There was one thing that scared {him}: {fear}.", "{Hero} was brave, but {he} was afraid of {fear}."],
     ["All the others laughed at {him}.", "{He} did not tell anybody about it.", "So {he} often stayed at home when the others played."],
     ["One day {a_friend} needed help.", "One evening {he} heard a cry for help. It was {a_friend}.", "Then one day {a_friend} got lost."],
     ["{Hero} was scared, but {he} wanted to help.", "{His} legs were shaking, but {he} did not run away.", "{He} took a deep breath and went to find {fhim}."],
     ["{He} found {friend} and took {fhis} hand.", "Step by step, {he} went on until {he} reached {friend}.", "\"Don't worry, I am here,\" said {hero}."],
     ["Soon they were both safe.", "Together they found the way home.", "In the end it was not so bad at all."],
     ["\"You are very brave,\" said {friend}.", "\"I was scared, but I did it!\" said {hero}.", "After that, {hero} was not afraid of {fear} any more."]],
    # Learning a skill.
    [["{He} wanted to learn how to {skill}.", "More than anything, {he} wanted to {skill}.", "{He} saw the others {skill}, and {he} wanted to do it too."],
     ["{He} tried and tried, but {he} could not do it.", "The first time {he} tried, {he} fell down.", "It was very hard, and {he} wanted to give up."],
     ["{A_friend} saw {him} and said, \"I can teach you.\"", "Then {he} asked {a_friend} for help.", "\"Do not give up,\" said {a_friend}."],
     ["Every day they practiced {at}.", "{Friend} showed {him} what to do, very slowly.", "They practiced every morning, in sun and in rain."],
     ["After many days, {hero} could {skill}!", "And one day, {hero} did it.", "At last {he} learned to {skill} very well."],
     ["\"Look at me!\" {he} shouted.", "{Friend} clapped and was very proud.", "{Hero} was so proud of {himself}."]],
    # Sharing food.
    [["{He} had a big basket of {food}.", "One day {he} had some {food} for lunch.", "{He} was hungry and wanted to eat {his} {food}."],
     ["Then {a_friend} came by.", "Just then {he} met {a_friend}.", "{A_friend} stood there and looked at the food."],
     ["\"I am so hungry,\" said {friend}.", "\"I have not eaten all day,\" {fhe} said.", "\"That smells good,\" said {friend}. \"I have nothing to eat.\""],
     ["{Hero} thought about it. There was not much, but {he} wanted to be kind.", "At first {hero} did not want to share.", "{Hero} looked at the {food}, and then {he} looked at {friend}."],
     ["\"Come and sit with me,\" {he} said, and gave {fhim} half.", "\"We can share it,\" said {hero}.", "Then {he} gave {friend} the bigger half."],
     ["They sat {at} and ate together.", "The {food} tasted even better together.", "{Friend} ate and smiled. \"You are very kind,\" {fhe} said."],
     ["The next day {friend} came back with a {color} {thing} as a gift.", "\"Next time I will share with you,\" said {friend}.", "{Hero} felt warm inside."]],
    # Somebody is stuck.
    [["{He} was on {his} way home when {he} heard a cry.", "One day {he} heard a small voice. \"Help! Help!\"", "{He} was playing {at} when somebody called for help."],
     ["It was {a_friend}, who was stuck in the mud.", "It was {a_friend}. {Fhe} had fallen into a deep hole.", "{A_friend} was up in a tall tree and could not get down."],
     ["{Hero} pulled and pulled, but it was too hard.", "\"Wait, I will help you!\" said {hero}.", "{Hero} thought hard about what to do."],
     ["Then {he} had an idea. {He} ran home and got a rope.", "{He} found a long branch and held it out.", "{He} ran home and came back with a ladder."],
     ["{Friend} held on tight, and at last {fhe} was free.", "Slowly, {friend} climbed out.", "It took a long time, but in the end {friend} was safe."],
     ["\"You saved me!\" said {friend}.", "\"How can I ever thank you?\" asked {friend}.", "{Friend} gave {hero} a big hug."],
     ["\"That is what friends are for,\" said {hero}.", "{Friend} gave {him} a {color} {thing} to say thank you.", "They walked home together."]],
    # Learns to share.
    [["{He} had a {color} {thing} and did not want to share it.", "{He} got a new {color} {thing}. \"It is mine, only mine,\" {he} said.", "{Hero} never let anybody touch {his} {color} {thing}."],
     ["{A_friend} asked, \"May I play with it?\"", "One day {a_friend} wanted to see it.", "\"Can I try it, please?\" asked {a_friend}."],
     ["\"No!\" said {hero}. {Friend} was sad and went away.", "{Hero} said no and ran away with it.", "{Hero} shook {his} head and hid the {thing}."],
     ["But playing alone was no fun.", "Soon {hero} was bored.", "{Hero} sat there all alone and felt bad."],
     ["So {he} went to {friend} and said, \"I am sorry.\"", "The next day {he} went to find {friend}. \"Let us play together,\" {he} said.", "\"I was mean,\" {he} thought. {He} went and said that {he} was sorry."],
     ["They took turns with the {thing}, and it was so much fun.", "{Friend} smiled, and they played with the {thing} all day.", "\"That is all right,\" said {friend}, and they played together."],
     ["{Hero} learned that sharing is more fun.", "\"It is better to share,\" said {hero}.", "From then on {hero} liked to share."]],
    # Something is broken and repaired.
    [["{He} had an old {thing} from {his} grandmother.", "{His} {color} {thing} was very old.", "{He} loved {his} {color} {thing}."],
     ["One day it fell down and broke.", "But one day the {thing} broke into two pieces.", "While {he} was playing, the {thing} broke."],
     ["{Hero} was sad. \"Oh no!\" {he} cried.", "{Hero} did not know what to do.", "Tears ran down {his} face."],
     ["{A_friend} heard {him} and came to help.", "{He} took it to {a_friend}.", "\"Let me see,\" said {a_friend}."],
     ["They worked all day with glue and a small hammer.", "{Friend} had some glue and some string.", "{Friend} worked slowly and carefully."],
     ["In the evening the {thing} was as good as new.", "Soon the {thing} was whole again.", "At last it was fixed. It even looked better than before."],
     ["\"You are so clever!\" said {hero}.", "{Hero} was very glad and said thank you.", "{Hero} promised to be more careful."]],
    # A birthday.
    [["It was {his} birthday, but nobody said a word.", "{Hero} woke up early, because it was {his} birthday.", "Today {hero} had a birthday."],
     ["{He} thought that everyone had forgotten it.", "{He} waited and waited, but nobody came.", "{He} went outside, but {he} could not find any of {his} friends."],
     ["{Hero} felt sad and walked home slowly.", "\"Nobody likes me,\" {he} thought.", "{He} sat down {at} and sighed."],
     ["Then {he} opened the door. \"Surprise!\" everyone shouted.", "Suddenly {friend} jumped out and shouted, \"Happy birthday!\"", "When {he} came home, the house was full of friends."],
     ["There was {food} for everyone, and there were candles on the table.", "{Friend} had made a big cake.", "They sang a song and ate {food}."],
     ["{Friend} gave {him} a {color} {thing}.", "{He} got a {color} {thing}. It was just what {he} wanted.", "The best gift was a {color} {thing} from {friend}."]],
    # A storm.
    [["Suddenly the sky grew dark, and a big storm began.", "In the afternoon a storm came. The wind was very strong.", "Then it began to rain, and there was thunder."],
     ["{Hero} was wet and cold.", "{Hero} was scared of the thunder.", "{Hero} did not know where to go."],
     ["{He} saw a light. It was the house of {a_friend}.", "Then {he} came to a little house, where {a_friend} lived.", "{A_friend} called, \"Come in, quick!\""],
     ["Inside it was warm and dry.", "{Friend} gave {him} a blanket and a cup of hot tea.", "There was a fire, and {he} could dry {his} feet."],
     ["They ate {food} and waited.", "They told stories until the storm was over.", "They played games and forgot the storm."],
     ["When it was over, there was a rainbow in the sky.", "In the morning the sun came out again.", "Soon the rain stopped, and the birds sang again."]],
    # A race.
    [["One day there was a race {at}.", "\"Let us have a race,\" said {a_friend}.", "{A_friend} said, \"I am the fastest of all.\""],
     ["{Hero} was not very fast, but {he} wanted to try.", "Everyone thought that {hero} would lose.", "{Hero} had practiced every day."],
     ["\"One, two, three, go!\" Off they ran.", "They ran past the trees and over the hill.", "{Friend} was soon far ahead."],
     ["But then {friend} fell over a stone.", "But {friend} was so sure to win that {fhe} stopped for a nap.", "Then {friend} hurt {fhis} foot and sat down."],
     ["{Hero} could have won, but {he} stopped to help.", "{Hero} came back and helped {fhim} up.", "\"Are you all right?\" asked {hero}."],
     ["They crossed the line together, hand in hand.", "In the end they both won.", "{Hero} got a {color} {thing} as a prize, because {he} was so kind."]],
    # A noise at night.
    [["One night {hero} heard a strange noise.", "In the middle of the night there was a sound. Knock, knock, knock!", "{Hero} could not sleep. Something was making a noise."],
     ["\"Is it a monster?\" {he} thought.", "{He} hid under the blanket.", "{He} was scared, but also curious."],
     ["{He} took a lamp and went to look.", "Very quietly, {he} got out of bed.", "Slowly, {he} opened the door."],
     ["It was only {a_friend}, who was looking for {food}!", "There was no monster. It was {a_friend}, who was cold and hungry.", "And there stood {a_friend} with a {color} {thing}."],
     ["\"I am sorry that I woke you,\" said {friend}.", "\"I did not want to scare you,\" {fhe} said.", "\"Oh, it is only you!\" said {hero}."],
     ["They both began to laugh.", "{Hero} gave {fhim} some {food}, and they sat down together.", "{Hero} laughed and made some tea."],
     ["Then {he} went back to bed and slept well.", "After that, {hero} was not afraid of noises in the night.", "Soon they were both asleep."]],
    # A seed grows.
    [["{A_friend} gave {him} a little seed.", "{He} found a tiny seed {at}.", "One day in spring {he} planted a seed."],
     ["{He} put it into the ground and gave it water.", "{Hero} watered it every day.", "\"Grow, little seed,\" said {hero}."],
     ["For a long time nothing happened.", "{He} waited and waited, but {he} saw nothing.", "{Hero} looked every morning, but there was only brown earth."],
     ["\"Be patient,\" said {friend}.", "{Friend} told {him} to wait a little longer.", "{Hero} wanted to give up, but {friend} said, \"Wait.\""],
     ["Then, one morning, there was a small green leaf!", "One day a tiny plant came out of the ground.", "After some rain and some sun, it began to grow."],
     ["In summer it was a beautiful flower.", "It grew and grew until it was as tall as {hero}.", "Soon there was a {color} flower on it."],
     ["{Hero} was proud and showed it to everyone.", "{Hero} gave the first flower to {friend}.", "\"I am glad that I waited,\" said {hero}."]],
    # Cooking goes wrong.
    [["{He} wanted to make {food} for {a_friend}.", "One day {he} decided to make {food}.", "\"Today I will cook for my friend,\" said {hero}."],
     ["But {he} took salt and not sugar.", "But {he} forgot it on the stove, and it was all black.", "There was flour on the floor, on the table and on {his} nose."],
     ["{A_friend} came in and tried some. \"Oh!\" {fhe} said. \"It tastes funny.\"", "When {friend} saw it, {fhe} began to laugh.", "\"What happened here?\" asked {friend}."],
     ["{Hero} was sad. \"I wanted to make something nice.\"", "{Hero} wanted to cry.", "\"I did it all wrong,\" said {hero}."],
     ["\"Let us make it again, together,\" said {friend}.", "{Friend} said, \"Never mind, I will help you.\"", "So they cleaned the kitchen and began again."],
     ["This time it was very good.", "Soon the whole house smelled good.", "They ate every bit of it."]],
    # A wish.
    [["{He} found a {color} {thing} {at}.", "One day {he} saw a {color} {thing} in the grass.", "{A_friend} gave {him} a magic {thing}."],
     ["It was magic! \"You have one wish,\" said a small voice.", "When {he} touched it, it began to shine.", "\"Make a wish,\" said {friend}."],
     ["{Hero} thought for a long time.", "{He} could wish for anything in the world.", "\"I could have all the {food} in the world,\" {he} thought."],
     ["Then {he} saw that {friend} was sad and ill.", "But {friend} had no home and was always cold.", "Then {he} thought of {friend}, who was all alone."],
     ["\"I wish that {friend} is happy,\" {he} said.", "So {he} did not make a wish for {himself}. {He} made it for {friend}.", "\"I wish for something good for my friend,\" said {hero}."],
     ["And the wish came true.", "There was a bright light, and the wish came true.", "The next morning {friend} came with a big smile."]],
    # Took something without asking.
    [["{A_friend} had a {color} {thing}, and {hero} wanted it very much.", "One day {he} saw the {color} {thing} of {a_friend}.", "{Hero} liked the {color} {thing} that belonged to {a_friend}."],
     ["{He} took it when nobody was looking.", "{He} took it home and did not ask.", "When {friend} was asleep, {he} took it away."],
     ["But then {he} felt bad.", "{He} could not sleep that night.", "{Hero} heard {friend} cry, and {his} heart was heavy."],
     ["In the morning {he} brought it back.", "\"I must give it back,\" {he} thought.", "So {he} went to {friend} with the {thing} in {his} hand."],
     ["\"I am sorry,\" {he} said. \"I took it.\"", "\"Please forgive me,\" said {hero}.", "{He} told the truth, and it was not easy."],
     ["{Friend} was quiet. Then {fhe} smiled. \"Thank you for telling me.\"", "\"Next time, just ask me,\" said {friend}.", "{Friend} forgave {him}, and they played with it together."],
     ["{Hero} felt much better.", "{Hero} never took anything again.", "\"I will always ask first,\" said {hero}."]],
    # A trip.
    [["{He} wanted to see the sea.", "{He} always wanted to go on a trip.", "\"I want to see the world,\" said {hero}."],
     ["{He} packed {food} and a {color} {thing}.", "{He} put a {color} {thing} into a bag and walked away.", "Early in the morning {he} began {his} trip."],
     ["On the way {he} met {a_friend}. \"May I come with you?\" {fhe} asked.", "Soon {he} met {a_friend}, and they went on together.", "{A_friend} came with {him}."],
     ["They walked over hills and through forests.", "They took a little boat down the river.", "They went by train and looked out of the window."],
     ["At last they saw the sea. It was so big and blue!", "In the evening they came to the top of a mountain and saw the whole valley.", "They saw many new things and made new friends."],
     ["After some days, {hero} missed {his} home.", "But at night {he} thought of {his} warm bed.", "\"It is beautiful, but home is best,\" said {hero}."],
     ["So they went home and told everyone about it.", "When they came home, everyone wanted to hear their story.", "{Hero} was happy to be home again."]],
    # A small creature is helped and pays back.
    [["One day {he} saw {a_friend}, who was hurt.", "{He} found {a_friend} under a tree. {Fhe} could not walk.", "{A_friend} had hurt {fhis} leg."],
     ["{Hero} took {fhim} home and gave {fhim} {food}.", "{Hero} was gentle and gave {fhim} water and {food}.", "\"I will take care of you,\" said {hero}."],
     ["After a week {friend} was well again.", "Soon {friend} could walk again.", "Every day {friend} felt a little better."],
     ["\"One day I will help you too,\" said {friend}.", "{Friend} said thank you and went home.", "They said goodbye and waved."],
     ["Then, in winter, {hero} got lost in the snow.", "Some time later {hero} fell into the river.", "One day {hero} lost the way in the dark."],
     ["{Friend} heard {him} and came to help.", "And who came? It was {friend}!", "{He} called for help, and {friend} came at once."],
     ["{Fhe} showed {him} the way home.", "\"You helped me, and now I help you,\" said {friend}.", "Together they got home safely."]],
    # A treasure map.
    [["One day {he} found an old map in a {thing}.", "{He} found a map {at}. There was a red cross on it.", "{A_friend} showed {him} an old map."],
     ["\"It is a treasure map!\" {he} said.", "\"Let us find the treasure!\" said {hero}.", "{Hero} was very excited."],
     ["{He} asked {a_friend} to come along.", "{He} and {friend} took a shovel and went off.", "Together they followed the map."],
     ["They walked past a lake and up a hill.", "They counted their steps, one, two, three.", "It was a long way, and their feet hurt."],
     ["Then they dug and dug, and they found a box.", "Under a big tree they found an old box.", "At the red cross there was a small box in the ground."],
     ["In the box there was a {color} {thing}.", "There was no gold in it, only a {color} {thing}.", "They opened it, and it was full of {color} stones."],
     ["\"The best thing was to look for it with you,\" said {hero}.", "They shared the treasure.", "They laughed, because it was so much fun."]],
    # A quarrel.
    [["{He} had a good friend, {a_friend}.", "{Hero} and {a_friend} always played together.", "{A_friend} was {his} best friend."],
     ["But one day they both wanted the same {color} {thing}.", "One day they had a fight about a {thing}.", "\"The {color} {thing} is mine!\" said {hero}. \"No, it is mine!\" said {friend}."],
     ["They were angry and went home.", "They did not talk to each other all day.", "{Hero} was so angry that {he} ran away."],
     ["At home it was very quiet.", "In the evening {hero} missed {friend}.", "{Hero} looked out of the window and felt sad."],
     ["\"A friend is better than a {thing},\" {he} thought.", "The next morning {he} went to {friend}.", "{He} made some {food} and took it to {friend}."],
     ["\"I am sorry,\" they both said at the same time.", "\"Let us be friends again,\" said {hero}.", "{Friend} was sorry too."],
     ["They hugged, and then they played again.", "They shared the {thing} and never had a fight again.", "And they were friends again."]],
    # Wants to be different.
    [["{He} thought that {he} was too small.", "{He} did not like how {he} looked.", "{He} wished to be big and strong."],
     ["\"I wish I were like {friend},\" {he} said.", "\"Everyone is better than me,\" {he} thought.", "{He} saw {a_friend} and wanted to be like {fhim}."],
     ["One day {friend} lost a {color} {thing} in a small hole.", "Then a {color} {thing} fell down between the stones, and nobody could get it.", "One day {friend} could not open the little door, because {fhis} hands were too big."],
     ["Nobody could help, only {hero}.", "\"I can do it!\" said {hero}.", "{Hero} was just the right size."],
     ["{He} did it in a moment.", "It was easy for {him}.", "In no time it was done."],
     ["\"You are great just as you are,\" said {friend}.", "\"I wish I could do that,\" said {friend}.", "Everyone clapped for {him}."],
     ["Now {hero} liked being {himself}.", "{Hero} smiled. It was good to be just who {he} was.", "After that, {he} never wanted to be somebody else."]],
    # The kite or balloon flies away.
    [["{He} had a {color} balloon.", "{Hero} got a {color} kite.", "{A_friend} gave {him} a {color} balloon."],
     ["{He} took it outside. The wind was strong.", "{He} ran with it over the field.", "It danced in the air, high and higher."],
     ["Suddenly it flew away!", "Then the wind took it away.", "But {he} let go for a moment, and it was gone."],
     ["{He} ran after it, but it was too fast.", "It flew over the trees and over the houses.", "\"Come back!\" {he} shouted."],
     ["{A_friend} saw it and caught it.", "It got stuck in a tree, and {a_friend} climbed up.", "Far away {a_friend} found it."],
     ["{Fhe} brought it back to {hero}.", "\"Is this yours?\" {fhe} asked.", "\"Here you are,\" said {friend}."],
     ["\"Thank you!\" said {hero}. \"Do you want to play with me?\"", "{Hero} was so glad, and they played together.", "This time {he} held it with both hands."]],
    # Somebody new.
    [["One day {a_friend} moved into the house next door.", "There was somebody new {at}. It was {a_friend}.", "{A_friend} came from far away and did not know anybody."],
     ["The others did not talk to {fhim}.", "{Friend} looked sad and shy.", "Nobody wanted to sit with {fhim}."],
     ["{Hero} made some {food} and went to say hello.", "\"Hello, my name is {Name},\" said {hero}.", "{Hero} went to {fhim} and smiled."],
     ["\"I can show you everything,\" {he} said.", "{He} showed {fhim} the best places to play.", "\"Do you want to see my {color} {thing}?\" asked {hero}."],
     ["{Friend} could tell wonderful stories.", "{Friend} knew many new games.", "{Friend} showed {him} a {color} {thing} from far away."],
     ["Soon all the others came and wanted to play too.", "Now {friend} was not alone any more.", "\"I like it here,\" said {friend}."]],
    # Tidying up.
    [["{His} room was a big mess.", "There were things all over the floor of {his} house.", "{Hero} never put {his} things away."],
     ["\"I will clean it tomorrow,\" {he} always said.", "{He} did not like to clean.", "\"I like it like this,\" said {hero}."],
     ["One day {he} could not find {his} {color} {thing}.", "Then {he} fell over a {color} {thing} and hurt {his} foot.", "One day {a_friend} came to visit and could not find a place to sit."],
     ["\"Let us clean up together,\" said {friend}.", "{A_friend} came to help {him}.", "\"It will be quick if we do it together,\" said {friend}."],
     ["They put the toys into a box and washed the floor.", "They sang a song while they worked.", "They put everything in its place."],
     ["Under the bed they found the {thing}!", "Soon the room was clean and bright.", "Now there was a lot of room to play."],
     ["\"It looks so nice!\" said {hero}.", "After that, {hero} put {his} things away every evening.", "Then they sat down and ate {food}."]],
    # A dream.
    [["One night {he} had a dream.", "{He} went to bed and closed {his} eyes.", "{Hero} fell asleep and began to dream."],
     ["In the dream {he} could fly.", "In the dream {he} was as tall as a tree.", "In the dream everything was made of {food}."],
     ["{He} met {a_friend}, who said, \"Come with me!\"", "{A_friend} was there too, with a {color} {thing}.", "A {color} {thing} began to talk to {him}."],
     ["They flew over the sea and up to the moon.", "They danced on a cloud and played with the stars.", "They saw a castle of ice and a river of milk."],
     ["Then {he} heard a voice. \"Wake up!\"", "Suddenly {he} fell, and {he} woke up.", "But then the sun came in at the window."],
     ["It was only a dream.", "{He} was in {his} own warm bed.", "{He} rubbed {his} eyes and looked around."],
     ["But there was a {color} {thing} on the bed!", "{He} told {friend} about it, and {fhe} laughed.", "\"What a funny dream!\" said {hero}."]],
    # A contest.
    [["There was a big contest {at}. Everyone could sing, dance or paint.", "One day there was a show {at}.", "\"Who can sing the best song?\" asked the king."],
     ["{Hero} wanted to win.", "{Hero} was too shy to sing in front of the others.", "{He} practiced for many days."],
     ["When it was {his} turn, {he} forgot everything.", "{His} heart was beating fast.", "Then {he} saw all the people, and {he} could not say a word."],
     ["{A_friend} came and stood next to {him}.", "\"We can do it together,\" said {a_friend}.", "{A_friend} smiled at {him}, and {he} felt better."],
     ["They began to sing, first quietly and then loudly.", "{He} closed {his} eyes and began.", "Together they sang a song about a {color} {thing}."],
     ["Everyone clapped and shouted.", "It was so beautiful that everyone was quiet.", "They won a {color} {thing}."]],
    # A gift.
    [["{He} wanted to give a gift to {a_friend}.", "Soon it was the birthday of {a_friend}.", "{A_friend} was ill, and {hero} wanted to make {fhim} happy."],
     ["But {he} had no money.", "{He} did not know what to give.", "{He} looked in every shop, but everything cost too much."],
     ["So {he} made a {thing}.", "Then {he} had an idea. {He} would make a {color} {thing}.", "\"I will make something,\" {he} said."],
     ["{He} worked all night.", "It took a long time, and it was not easy.", "{He} used paper, paint and a lot of glue."],
     ["When {friend} saw it, {fhe} was very happy.", "{Friend} opened the box and smiled.", "\"For you,\" said {hero}, and gave it to {fhim}."],
     ["\"It is the best gift of all,\" said {friend}, \"because you made it.\"", "\"You made this for me?\" asked {friend}.", "{Friend} put the {thing} next to {fhis} bed."]],
]

# What one can learn from each plot, in the order of PLOTS.
MORALS = [[first, second] for first, second in (line.split("|") for line in """
They learned that it is easier to find things together.|If you lose something, a friend can help you to look for it.
They learned that saying hello is the first step to a new friend.|You are not alone if you dare to say hello.
They learned that you can be scared and brave at the same time.|If a friend needs help, you can be stronger than your fear.
They learned that you should not give up.|If you practice every day, hard things get easy.
They learned that sharing makes everyone happy.|Food tastes better together.
They learned that friends help each other.|If somebody calls for help, you should not walk by.
They learned that it is more fun to share.|A toy is no fun if you play alone.
They learned that broken things can often be fixed.|With some patience and a friend you can mend many things.
They learned that good friends do not forget you.|Sometimes friends are quiet because they have a surprise.
They learned that a storm is not so bad in a warm house with a friend.|After the rain comes the sun.
They learned that helping is more important than winning.|A good friend is better than a prize.
They learned that many noises are not dangerous at all.|If you are scared, look carefully. Often it is only a friend.
They learned that good things need time.|If you are patient, something beautiful can grow.
They learned that everyone makes mistakes.|If something goes wrong, you can try again together.
They learned that the best wishes are those for others.|If you make a friend happy, you will be happy, too.
They learned that you should ask before you take something.|It is good to tell the truth, even if it is hard.
They learned that the world is big, but home is best.|A trip is more fun with a friend.
They learned that kindness comes back.|If you help others, they will help you one day.
They learned that the best treasure is a good friend.|The way there can be more fun than the treasure.
They learned that a friend is more important than a toy.|After a fight it is good to say sorry.
They learned that everyone is good at something.|You are just right as you are.
They learned that you should hold on to what you love.|Somebody kind may bring back what you lost.
They learned that it is good to be kind to somebody new.|A smile can make somebody feel at home.
They learned that work is quick if you do it together.|If you put your things away, you will find them again.
They learned that dreams can be funny.|A dream is not real, but it can be a nice adventure.
They learned that together you are braver.|Everyone is nervous sometimes, and a friend can help.
They learned that the best gifts come from the heart.|You do not need money to make somebody happy.
""".strip().splitlines())]
