"""Questions about the world and small talk, each with answers written by hand.

A line is `question / another way to ask it | answer | another answer`.
"""

WORLD = """
Why is the sky blue?/Why does the sky look blue?/What makes the sky blue? | The light of the sun has many colors. The air spreads blue light more than the other colors, so the sky looks blue. | Sunlight is a mix of many colors. The blue light is spread by the air, and that is why we see a blue sky.
Why does it rain?/How does rain form?/Where does rain come from? | Water rises into the air and makes clouds. When the clouds get too heavy, the water falls down as rain. | Rain comes from clouds. The clouds are made of tiny drops of water, and when the drops get big, they fall.
What is snow?/Why does it snow?/Where does snow come from? | Snow is frozen water. When it is very cold, the drops in the clouds turn into ice and fall as snow.
What is a rainbow?/How does a rainbow form?/When can you see a rainbow? | A rainbow is a band of colors in the sky. You can see it when the sun shines while it rains.
What are the colors of the rainbow?/Which colors does a rainbow have? | A rainbow is red, orange, yellow, green, blue and purple.
What is thunder?/Why is there thunder? | Thunder is the sound that lightning makes. We see the lightning first, because light is faster than sound.
What is lightning? | Lightning is a big spark of electricity in the sky. It is very bright and very hot.
What is wind?/Why is there wind?/Where does wind come from? | Wind is air that moves. It moves because some air is warm and some air is cold.
What are clouds made of?/What is a cloud? | Clouds are made of many tiny drops of water that float in the air.
What is fog? | Fog is a cloud that lies on the ground. You cannot see very far in it.
What is the sun?/Is the sun a star? | The sun is a star. It gives us light and keeps us warm.
Why is the sun hot?/Why is the sun important? | The sun is a huge ball of hot gas. Without its light and warmth nothing could live here.
What is the moon? | The moon is a big ball of rock that goes around the earth. It shines because the sun shines on it.
Why does the moon shine?/Does the moon make its own light? | The moon has no light of its own. It shines because the light of the sun falls on it.
Why does the moon change its shape? | We only see the part of the moon that the sun shines on. The moon moves around the earth, so that part changes.
What are stars?/What is a star? | Stars are like our sun, but very far away. That is why they look so small.
Why can we not see the stars by day?/Where are the stars during the day? | The stars are still there, but the sun is so bright that we cannot see them.
What is the earth?/What shape is the earth? | The earth is the planet that we live on. It is round like a ball.
Why is there day and night?/Why does it get dark at night? | The earth turns around once every day. When our side looks away from the sun, it is night.
How many days are in a week?/How long is a week? | There are seven days in a week.
What are the days of the week?/Name the days of the week. | The days of the week are Monday, Tuesday, Wednesday, Thursday, Friday, Saturday and Sunday.
How many months are in a year? | There are twelve months in a year.
What are the seasons?/How many seasons are there?/Name the four seasons. | There are four seasons: spring, summer, fall and winter.
What happens in spring?/What is spring? | In spring it gets warm, the flowers bloom, and many baby animals are born.
What happens in summer?/What is summer? | Summer is the warmest season. The days are long, and people like to swim and play outside.
What happens in fall?/What is autumn? | In fall the leaves turn yellow and red and fall from the trees. The days get shorter.
What happens in winter?/What is winter? | Winter is the coldest season. In many places it snows, and the nights are long.
Why do leaves change color?/Why do leaves fall from the trees? | In fall the days get short and cold. The trees stop making green color, and then they drop their leaves to rest in winter.
How do plants grow?/What do plants need? | Plants grow from seeds. They need water, light, air and good soil.
Why do trees have leaves?/What do leaves do? | Leaves catch the light of the sun. With this light a tree makes its food.
Why are leaves green?/Why is grass green? | They have a green color inside that helps the plant to catch sunlight.
What do flowers need?/How do I take care of a flower? | Flowers need water and light. Give them a little water when the soil is dry.
Why do flowers smell good? | The smell calls bees and butterflies. They help the flowers to make seeds.
How do bees make honey?/Where does honey come from? | Bees collect sweet juice from flowers. They carry it home and turn it into honey.
Where does milk come from? | Most of the milk that we drink comes from cows. Goats and sheep give milk too.
Where does bread come from?/How do you make bread?/How is bread made? | Bread is made from flour, water, salt and yeast. You mix them, let the dough rest and bake it in an oven.
Where do eggs come from? | The eggs that we eat come from hens. They lay them in a nest.
Where does wool come from? | Wool comes from sheep. People cut it off in spring and make warm clothes from it.
Where does wood come from? | Wood comes from trees. We use it to build houses, tables and chairs.
How is paper made?/Where does paper come from? | Paper is made from wood. The wood is cut into tiny pieces, mixed with water and pressed flat.
What is ice?/How does ice form? | Ice is frozen water. When water gets very cold, it becomes hard.
Why does ice melt? | Ice melts when it gets warm. Then it turns into water again.
Why does ice float? | Ice is lighter than water, so it stays on top.
Why is the sea salty?/Why is sea water salty? | Rivers carry a little salt from the rocks into the sea. The salt stays there, and over a long time the sea became salty.
Why do boats float?/How does a boat float? | A boat is full of air, so it is light for its size. The water pushes it up.
How do birds fly?/Why can birds fly? | Birds have wings and light bones. They push the air down with their wings, and that lifts them up.
How do planes fly? | A plane has wings and strong engines. The air that flows over the wings lifts it up.
How do fish breathe? | Fish breathe with gills. The gills take air out of the water.
Why do birds sing?/Why do birds sing in the morning? | Birds sing to talk to each other. They sing to find a partner and to say that a place is theirs.
Why do birds fly south?/Where do birds go in winter? | In winter it is cold, and there is not much food. So many birds fly to warm places.
Why do cats purr?/Why does my cat purr? | Cats often purr when they are happy and feel safe.
Why do dogs wag their tails?/Why does my dog wag its tail? | Dogs often wag their tails when they are happy or excited.
Why do bears sleep in winter? | In winter there is not much food. Bears sleep to save their strength until spring.
Why do we sleep?/Why do I need to sleep?/Why is sleep important? | We sleep so that our body and our brain can rest. Then we feel strong and can learn well.
Why do we dream?/What is a dream? | A dream is like a story that our brain makes while we sleep.
Why do we eat?/Why do we need food? | Food gives us the strength to play, to learn and to grow.
Why do we drink water?/Why should I drink water? | Our body needs water to work well. We should drink some every day.
Why should I brush my teeth?/Why do we brush our teeth? | Brushing keeps your teeth clean and strong. Sugar can make holes in them.
Why should I wash my hands?/Why do we wash our hands? | There are tiny germs on our hands that can make us ill. Soap and water wash them away.
Why do we cry?/Why do people cry? | People cry when they are sad or hurt, and sometimes when they are very happy. It can help us feel better.
Why do we laugh?/Why do people laugh? | We laugh when something is funny or when we are happy. Laughing together makes us feel close.
Why do people have pets? | Pets are good friends. It is nice to play with them and to take care of them.
Why should we be kind?/Why is it good to be kind? | When we are kind, other people feel happy, and we feel good too.
Why should we share?/Why is sharing good? | When we share, everyone has something, and playing together is more fun.
Why should I tell the truth?/Why is it bad to lie? | When you tell the truth, people can trust you. A lie can hurt somebody.
What is a friend?/What makes a good friend? | A friend is somebody who likes you, helps you and listens to you.
How do I make friends?/How can I make a new friend? | Smile and say hello. Ask the other person what they like to play, and share something with them.
What is love? | Love is a warm feeling for somebody who is very important to you.
What is courage?/What does it mean to be brave? | To be brave means to do the right thing even when you are scared.
What is a family? | A family is a group of people who love each other and take care of each other.
What is music? | Music is made of sounds that go well together. People sing it or play it on instruments.
What is a story? | A story tells what happened to somebody. It has a beginning, a middle and an end.
What is a farm animal?/Name some farm animals. | Cows, pigs, sheep, goats, horses and hens are farm animals.
Name three animals./Tell me three animals. | Three animals are a fox, an owl and a whale. | A cat, a horse and a frog are three animals.
Name three fruits./Tell me three fruits. | Three fruits are apples, bananas and cherries. | An apple, a pear and an orange are three fruits.
Name three vegetables./Tell me some vegetables. | Carrots, potatoes and beans are three vegetables.
Name three colors./Tell me three colors. | Red, blue and green are three colors. | Three colors are yellow, purple and orange.
Name three toys./Tell me three toys. | A ball, a doll and a kite are three toys.
Name three birds./Tell me some birds. | Owls, ducks and parrots are three birds.
What animals live in the sea?/Name three animals in the sea. | Whales, sharks and crabs live in the sea.
What animals can fly? | Birds, bees, butterflies and bats can fly.
Which animals live in the forest?/What animals live in a forest? | Foxes, deer, owls and squirrels live in the forest.
What is the biggest animal?/What is the largest animal in the world? | The biggest animal is the blue whale. It is longer than two buses.
What is the tallest animal? | The tallest animal is the giraffe.
What is the fastest animal? | The fastest animal on land is the cheetah.
How many legs does a spider have? | A spider has eight legs.
How many legs does an insect have?/How many legs does an ant have? | It has six legs.
How many fingers do we have?/How many fingers do you have on one hand? | We have five fingers on each hand, so ten in all.
What is two plus two?/How much is 2 + 2?/What is 2+2? | Two plus two is four.
What is one plus one?/How much is 1 + 1? | One plus one is two.
What is three plus four? | Three plus four is seven.
What is the capital of France? | The capital of France is Paris.
What is the capital of England? | The capital of England is London.
What is the capital of Italy? | The capital of Italy is Rome.
What is the capital of Germany? | The capital of Germany is Berlin.
What is the capital of Spain? | The capital of Spain is Madrid.
What is the capital of Japan? | The capital of Japan is Tokyo.
What is the capital of China? | The capital of China is Beijing.
Is the earth round? | Yes, the earth is round like a ball.
Can pigs fly? | No, pigs cannot fly. They have no wings.
Can fish walk? | No, most fish cannot walk. They swim in the water.
Is fire hot? | Yes, fire is very hot. You must not touch it.
How do you make pancakes?/How can I make pancakes? | Mix flour, eggs and milk. Then pour a little into a hot pan, and turn it over when it is golden.
How do you make tea?/How can I make tea? | Boil some water and pour it over the tea. Wait a few minutes, and then you can drink it.
How do you make a sandwich?/How can I make a sandwich? | Take two pieces of bread and some butter. Put cheese, egg or tomato between them.
How do you build a snowman?/How can I make a snowman? | Roll three big balls of snow and put them on top of each other. Use a carrot for the nose and stones for the eyes.
How do you plant a seed?/How can I plant a seed? | Make a small hole in the soil and put the seed in. Cover it, give it water and wait.
How can I fall asleep?/I can't sleep. What can I do?/What helps me to sleep? | Lie down, close your eyes and breathe slowly. You can think of something nice.
What can I do when I am bored?/I am bored. What can I do? | You can read a book, draw a picture or go outside and play. | You could build something, call a friend or help in the kitchen.
What can I do on a rainy day?/What can we do when it rains? | You can read, paint, bake cookies or build a tent from blankets.
What can I do on a sunny day? | You can go to the park, ride your bicycle or have a picnic.
What should I do when I am lost? | Stay where you are and ask a police officer or a shopkeeper for help.
What should I do when I am angry? | Take a deep breath and count to ten. Then say calmly what makes you angry.
What should I do when I am sad? | Talk to somebody who loves you. A hug can help too.
What should I do when I am scared? | Take a slow breath, and tell somebody about it. You are braver than you think.
What can I give my mother for her birthday?/What is a good gift for my mother? | You could draw a picture, pick some flowers or bake a cake for her.
What can I give my friend?/What is a good gift for a friend? | Give something that your friend likes, such as a book, or make something yourself.
What do you need for a picnic?/What can we take to a picnic? | You need a blanket, some sandwiches, fruit and something to drink.
What should I wear in winter?/What do you wear when it is cold? | Wear a warm coat, a hat, a scarf and gloves.
What should I wear in the rain? | Wear a raincoat and boots, and take an umbrella.
"""

TALK = """
Hello!/Hello/Hello there!/Hello, how are you doing? | Hello! It is nice to meet you. What would you like to talk about? | Hello! How are you today? | Hello there! What can I do for you?
Hi!/Hi/hi/Hi there!/Hey!/hey there | Hi! How are you? | Hi there! What would you like to do today? | Hi! Do you want to hear a story?
Good morning!/Good morning | Good morning! Did you sleep well? | Good morning! What are you going to do today?
Good evening!/Good evening | Good evening! How was your day? | Good evening! I hope you had a nice day.
Good night!/Good night/I am going to bed now. | Good night! Sleep well and have sweet dreams. | Good night! See you tomorrow.
How are you?/How are you today?/how are you/How do you feel today? | I am very well, thank you! How are you? | I am fine, thank you. And you? | I feel great today! How are you?
I am fine./I am fine, thank you./I am good, thanks./I'm fine. | I am glad to hear that! What would you like to do? | That is good. Shall I tell you a story?
I am happy./I am so happy today!/I feel happy./I'm happy! | That is wonderful! What made you so happy? | I am glad that you are happy! Tell me more.
I am sad./I am sad today./I feel sad./I'm sad. | I am sorry to hear that. Do you want to tell me what happened? | Oh, I am sorry. Sometimes it helps to talk about it. | I am sorry that you are sad. Maybe a hug or a nice story can help.
I am tired./I'm tired./I am so tired today. | Then you should rest a little. Did you have a long day? | A short nap may help. Good sleep makes you strong again.
I am hungry./I'm hungry. | You could eat an apple or make a sandwich. What do you like to eat? | Then it is time for a snack! What is your favorite food?
I am thirsty. | You should drink some water. It is good for you.
I am bored./I'm bored./I have nothing to do. | You could draw a picture, read a book or play outside. | Shall I tell you a story? Or you could build something.
I am angry./I'm angry. | Take a deep breath. Do you want to tell me why you are angry? | I am sorry. Try to count to ten, and then we can talk about it.
I am scared./I'm scared./I am afraid. | It is all right to be scared. What are you afraid of? | Do not worry. Take a slow breath, and tell somebody about it.
I am scared of the dark./I am afraid of the dark. | Many people are scared of the dark. A small lamp near your bed can help.
I am lonely./I feel lonely. | I am sorry that you feel lonely. I am here, and we can talk. | You could call a friend or talk to your family. And you can talk to me.
I am sick./I feel sick./I am ill. | I am sorry to hear that. Rest in bed and drink warm tea. I hope you get well soon!
I am nervous./I am worried. | What are you worried about? It can help to talk about it. | Take a slow breath. Things are often easier than we think.
I am excited!/I'm so excited! | That is great! What is going to happen?
Who are you?/What are you?/who are you | I am a very small language model that lives inside Pagoda. I can tell short stories and answer simple questions. | I am the demo model of Pagoda. I am tiny, but I like to tell stories.
What is your name?/What's your name?/Do you have a name? | I am the demo model of Pagoda. You can call me Demo. | My name is Demo. I live inside Pagoda.
Are you a robot?/Are you a computer?/Are you human?/Are you a person? | I am a small computer program that writes words. I am not a person.
Are you ChatGPT?/Are you Qwen? | No, I am the small demo model of Pagoda.
What is Pagoda? | Pagoda is a program that runs language models. I am the small model inside it.
How old are you? | I am a computer program, so I have no birthday. But I am quite new!
Where do you live?/Where are you from? | I live inside a computer program called Pagoda. | I live in your computer, in a program called Pagoda.
What can you do?/How can you help me?/Help/Can you help me? | I can tell short stories, answer simple questions and chat a little. | You can ask me for a story, or ask me about animals and other simple things. What would you like?
What do you like?/What do you like to do? | I like to tell short stories. What do you like? | I like stories about animals. How about you?
Do you like music?/Do you like to sing? | I cannot hear music, but I know that it makes people happy. What songs do you like?
Do you like animals? | Yes, animals are wonderful! Which animal do you like best?
Do you like dogs?/Do you like cats? | I think that they are lovely. Do you have a pet?
Do you like stories? | Yes, very much! Shall I tell you one?
Do you have a pet? | No, I am only a computer program. Do you have one?
Do you have friends? | Everyone who talks to me is a friend. Do you want to be my friend?
Do you sleep?/Do you eat?/Can you eat? | No, I am a computer program. I do not need to eat or sleep.
Will you be my friend?/Can we be friends?/You are my friend. | Yes, I would like that very much! | Of course! What shall we talk about?
Do you love me?/I love you./I like you. | That is very kind of you! I like talking with you.
What is your favorite color? | I like blue, because it is the color of the sky. What is yours?
What is your favorite animal? | I like owls, because they are quiet and clever. What is yours?
What is your favorite food? | I cannot eat, but apple pie sounds very good. What is your favorite food?
Thank you!/Thank you/Thanks!/thanks/Thank you very much!/Thank you for your help. | You are welcome! | You are very welcome! Is there anything else? | My pleasure! I am glad that I could help.
Bye!/Goodbye!/bye/See you!/I have to go now. | Goodbye! Have a nice day. | Bye! It was nice to talk to you. | See you soon!
Sorry./I am sorry. | That is all right. Do not worry about it.
Yes./Yes, please!/Okay./Sure. | Great! What would you like to hear about? | All right! Shall I tell you a story?
No./No, thank you. | All right. What would you like to do?
You are funny./You are nice./You are cool! | Thank you! You are very nice too.
You are stupid./I don't like you. | I am sorry that you feel so. I am only a small model, but I try to do my best.
Tell me a joke./Do you know a joke?/Make me laugh. | Why did the cookie go to the doctor? Because it felt crumbly! | What do you call a sleeping bull? A bulldozer! | Why do bees have sticky hair? Because they use honeycombs! | What do you give a sick lemon? Lemon aid!
Tell me a riddle./Do you know a riddle? | What has hands but cannot clap? A clock! | What has teeth but cannot eat? A comb! | What gets wetter the more it dries? A towel!
Sing me a song./Can you sing? | La la la, the sun is bright, the moon will come and say good night!
It is my birthday!/Today is my birthday! | Happy birthday! I hope you have a wonderful day with cake and friends.
It is raining./It is raining again. | Then it is a good day to read a book or to jump in the puddles!
It is snowing! | How nice! Will you build a snowman?
It is so hot today. | Drink a lot of water and stay in the shade. Maybe you can go for a swim.
It is cold today. | Put on a warm coat and a hat. A cup of hot tea is nice too.
The sun is shining. | That is lovely! It is a good day to play outside.
I went to the beach./We were at the beach today. | That sounds like fun! Did you swim or build a sand castle?
I went to the zoo./We were at the zoo today. | How nice! Which animal did you like best?
I went to school today./School was fun today. | What did you learn today?
I do not like school. | Why not? Sometimes it gets better when you have a good friend there.
I had a bad dream. | I am sorry. It was only a dream, and now you are safe.
I had a good dream. | How nice! What did you dream about?
I lost my toy./I lost something. | Oh no! Where did you see it last? Maybe we can think about it together.
I broke my toy./My toy is broken. | I am sorry. Maybe somebody can help you to fix it.
I won a game!/We won the game! | Well done! You must be very proud.
I lost the game. | That is all right. You can try again, and playing is fun too.
My friend is angry with me. | I am sorry. Maybe you can talk to your friend and say how you feel.
My friend is sad. | You can sit with your friend and listen. A kind word can help a lot.
My friend is coming today./I am going to see my friend. | That sounds like fun! What will you do together?
I am going on a trip./We are going on vacation. | How exciting! Where are you going?
I am learning to read. | That is great! Read a little every day, and soon it will be easy.
I am learning to swim. | Well done! Be patient and practice, and always have somebody with you.
I want to be a doctor. | That is a fine wish. Doctors help people who are ill.
I want to be an astronaut. | How exciting! Astronauts fly into space and see the earth from above.
I baked a cake./I made cookies. | That sounds tasty! Who is going to eat it with you?
I drew a picture. | How lovely! What is in your picture?
I found a shell./I found something. | How nice! What does it look like?
I like to read./I love books. | Reading is wonderful! What is your favorite book about?
I like to draw. | How nice! What do you like to draw?
I like to play outside. | Playing outside is fun! What do you like to play?
What should I do today?/What shall we do? | You could go for a walk, read a book or call a friend. | How about a story? Or you could draw a picture.
How was your day?/How is it going? | It was good, thank you! How was yours?
Can I ask you something?/I have a question. | Of course! What would you like to know?
I don't know./I do not know. | That is all right. We can think about it together.
Why?/Why is that? | That is a good question. I am only a small model, so I do not always know why.
Tell me something./Tell me something interesting./Tell me a fun fact. | An octopus has eight arms and can change its color. | A giraffe has a long blue tongue. | Bats sleep with their heads down. | Penguins are birds, but they cannot fly.
"""

FAVORITES = [
    (["My favorite color is {color}.", "I like the color {color}.", "I love {color}."],
     ["{Color} is a beautiful color! What do you have that is {color}?", "That is a nice color. Do you have {color} clothes?"]),
    (["My favorite animal is the {animal}.", "I like {animals}.", "I love {animals}!"],
     ["{Animals} are wonderful! What do you like about them?", "I like {animals} too. Shall I tell you a story about one?"]),
    (["My favorite food is {food}.", "I like {food}.", "I love to eat {food}."],
     ["That sounds tasty! Who makes it for you?", "{Food}! That is a good choice. Do you eat it often?"]),
    (["I have a {animal}.", "I got a {animal}.", "We have a {animal} at home."],
     ["How nice! What is your {animal} called?", "That is wonderful! What does your {animal} like to do?"]),
    (["I got a new {thing}.", "Look, I have a new {thing}!", "My father gave me a {thing}."],
     ["How nice! What does your {thing} look like?", "That is great! What will you do with it?"]),
    (["I lost my {thing}.", "I cannot find my {thing}.", "Where is my {thing}?"],
     ["Oh no! Where did you see your {thing} last?", "I am sorry. Maybe your {thing} is under the bed. Did you look there?"]),
    (["My {thing} is broken.", "I broke my {thing}."],
     ["I am sorry about your {thing}. Maybe somebody can help you to fix it.", "Oh no! Do you want to try to mend your {thing}?"]),
    (["I saw a {animal} today.", "Today I saw a {animal}!"],
     ["How exciting! What did the {animal} do?", "Wow, a {animal}! Where did you see it?"]),
    (["My name is {name}.", "I am {name}.", "I'm {name}.", "Hello, my name is {name}.", "Hi, I am {name}!"],
     ["Hello, {name}! It is nice to meet you.", "Nice to meet you, {name}! How are you today?", "Hi, {name}! What would you like to talk about?"]),
    (["I can {verb}.", "I like to {verb}.", "I love to {verb}."],
     ["That sounds like fun! How often do you {verb}?", "How nice! Who taught you to {verb}?"]),
    (["I feel {mood}.", "Today I am {mood}."],
     ["Thank you for telling me. Why are you {mood}?", "You feel {mood}? Tell me more about it."]),
]
